"""Fetches of a `.sqsh` by the nodes of a job, each behind a link of its own: who sends what.

    python -m bench.sqsh_fetch          # 16 nodes, 400 MB: some 10 minutes
    python -m bench.sqsh_fetch --nodes 2 --mb 1500 --node-rate 100 --origin-rate 200
    python -m bench.sqsh_fetch --only "first fetch" --only "killed"

Each node is a network namespace whose link is held to the rate, in MB/s, in both directions
(bench/limited_links.py). The origin is a namespace, too: docker-registry with two builds of one
image, of which the second has so many MB of other pieces. All namespaces share this machine's disk
and cores, so the rates have to be such that links are the limit. For comparison every node reads
the whole file by itself, in one stream, as `cp` reads a file of a shared folder, and in eight
ranges at a time, as `aws s3 cp` does; and `sbcast` sends it to them (bench/sbcast.py).

Needs root, iproute2, docker-registry, and for sbcast Slurm.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.limited_links import ORIGIN_ADDRESS, Network, address, network
from bench.sbcast import slurm_nodes
from slipway.core import anonymous, silent
from slipway.registry import (
    OCI_MANIFEST,
    BlobTransfer,
    Manifest,
    RegistryClient,
    Repository,
    deliver_blobs,
    digest_of,
)
from slipway.sqsh import fetch_program, push_sqsh
from tests.support.launcher.sqsh_files import sidecar_text
from tests.support.registry.open_registry import open_registry

ROOT = Path(__file__).parents[1]
PIECE_BYTES = 8 << 20  # as an export cuts them
PORT = 5000
REPOSITORY = "bench/image"

#: Every range of a file, so many at a time, into a file, by the standard library.
GET = """
import os, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
base, target, streams, *blobs = sys.argv[1:]
file = os.open(target, os.O_WRONLY | os.O_CREAT)
def get(numbered):
    at = numbered[0] * PIECE_BYTES
    with urllib.request.urlopen(f"{base}/{numbered[1]}") as answer:
        while data := answer.read(1 << 18):
            at += os.pwrite(file, data, at)
with ThreadPoolExecutor(int(streams)) as pool:
    list(pool.map(get, enumerate(blobs)))
""".replace("PIECE_BYTES", str(PIECE_BYTES))

#: A node of which the first piece that it gives is not what was asked for.
CORRUPT = """
import runpy, socket, sys
send, to_corrupt = socket.socket.sendfile, [True]
def sendfile(self, file, offset=0, count=None):
    if not to_corrupt:
        return send(self, file, offset, count)
    to_corrupt.clear()
    self.sendall(bytes(count))
    return count
socket.socket.sendfile = sendfile
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Bench:
    """The files, the registry's storage, and the flags."""

    root: Path
    flags: argparse.Namespace
    net: Network
    registry: subprocess.Popen[bytes] | None = None

    def make_files(self) -> None:
        """Two builds of random pieces, in a registry whose storage the origin then serves."""
        count = self.flags.mb * 10**6 // PIECE_BYTES
        changed = self.flags.changed * 10**6 // PIECE_BYTES
        with (
            open_registry(self.root / "registry") as host,
            RegistryClient(host, anonymous) as client,
        ):
            put_image(client)
            for build in ("a", "b"):
                pieces = []
                for number in range(count):
                    other = build == "b" and number < changed
                    seed = f"{number} {'b' if other else 'a'}"
                    pieces.append(random.Random(seed).randbytes(PIECE_BYTES))
                path = self.root / f"{build}.sqsh"
                path.write_bytes(b"".join(pieces))
                path.with_name(f"{build}.sqsh.json").write_bytes(sidecar_text(pieces))
                push_sqsh(path, Repository(client, REPOSITORY), build, silent)
        (self.root / "fetch.pyz").write_bytes(fetch_program(ROOT / "entrypoints"))

    @contextmanager
    def origin(self) -> Iterator[None]:
        """The registry in its namespace, as long as the block runs."""
        self.start_origin()
        try:
            yield
        finally:
            self.stop_origin()

    def start_origin(self) -> None:
        config = json.loads((self.root / "registry" / "config.yml").read_text())
        config["http"]["addr"] = f"{ORIGIN_ADDRESS}:{PORT}"
        path = self.root / "origin.yml"
        path.write_text(json.dumps(config))
        self.registry = subprocess.Popen(
            ["ip", "netns", "exec", "sf-origin", "docker-registry", "serve", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop_origin(self) -> None:
        assert self.registry is not None
        self.registry.kill()
        self.registry.wait()

    def node(
        self, number: int, nodes: int, build: str, *, corrupt: bool = False
    ) -> subprocess.Popen[str]:
        hosts = ",".join(address(n) for n in range(nodes))
        folder = self.root / f"n{number}"
        return subprocess.Popen(
            ["ip", "netns", "exec", f"sf-n{number}", sys.executable, "-I", "-S",
             *(("-c", CORRUPT) if corrupt else ()),
             str(self.root / "fetch.pyz"), f"registry://{ORIGIN_ADDRESS}:{PORT}/{REPOSITORY}:{build}",
             "--to", str(folder), "--hosts", hosts, "--node-rank", str(number), "--plain-http",
             "--json"],
            stdout=subprocess.PIPE,
            stderr=(self.root / f"n{number}.log").open("a"),
            text=True,
            env={"PATH": os.environ["PATH"], "LAUNCH_SECRET": "of the bench"},
        )  # fmt: skip

    def clean(self, nodes: int, *, older: bool) -> None:
        """Folders of nodes: empty, or with the first build (a link: its bytes are the same)."""
        for number in range(nodes):
            folder = self.root / f"n{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if older:
                for name in ("a.sqsh", "a.sqsh.json"):
                    os.link(self.root / name, folder / name)

    def run(
        self,
        nodes: int,
        build: str,
        *,
        older: bool,
        disturb: Callable[[list[subprocess.Popen[str]]], None] | None = None,
        corrupt: int | None = None,
    ) -> dict[str, Any]:
        """One fetch by so many nodes: seconds until the last has it, and who sent what.

        `corrupt`: a node of which the first piece that it gives is wrong.
        """
        self.clean(nodes, older=older)
        before, began = self.net.sent("origin"), time.monotonic()
        running = [
            self.node(number, nodes, build, corrupt=number == corrupt) for number in range(nodes)
        ]
        if disturb is not None:
            threading.Thread(target=disturb, args=(running,), daemon=True).start()
        results = []
        for process in running:
            out = process.communicate()[0]
            if process.returncode == 0:
                results.append(json.loads(out))
        seconds = time.monotonic() - began
        wanted = self.root / f"{build}.sqsh"
        for result in results:
            same = subprocess.run(["cmp", "-s", result["path"], str(wanted)], check=False)
            assert same.returncode == 0, "a node has something else"
        return {
            "nodes": nodes,
            "right": len(results),
            "seconds": seconds,
            "origin": sum(result["from_origin"] for result in results),
            "peers": sum(result["from_peers"] for result in results),
            "wire": self.net.sent("origin") - before,
        }

    def whole_file(self, nodes: int, streams: int) -> dict[str, Any]:
        """Every node reads the whole file by itself, in so many ranges at a time."""
        self.clean(nodes, older=False)
        script = self.root / "get.py"
        script.write_text(GET)
        lines = json.loads((self.root / "b.sqsh.json").read_text())["pieces"]
        blobs = [f"sha256:{line.split()[1]}" for line in lines]
        base = f"http://{ORIGIN_ADDRESS}:{PORT}/v2/{REPOSITORY}/blobs"
        before, began = self.net.sent("origin"), time.monotonic()
        command = [sys.executable, str(script), base]
        running = []
        for number in range(nodes):
            words = [str(self.root / f"n{number}" / "b.sqsh"), str(streams), *blobs]
            space = ["ip", "netns", "exec", f"sf-n{number}"]
            running.append(subprocess.Popen([*space, *command, *words]))
        assert [process.wait() for process in running] == [0] * nodes
        seconds = time.monotonic() - began
        wire = self.net.sent("origin") - before
        wanted = self.root / "b.sqsh"
        for number in range(nodes):
            subprocess.run(["cmp", self.root / f"n{number}" / "b.sqsh", wanted], check=True)
        size = nodes * wanted.stat().st_size
        return {
            "nodes": nodes,
            "right": nodes,
            "seconds": seconds,
            "origin": size,
            "peers": 0,
            "wire": wire,
        }

    def sbcast(self, nodes: int) -> dict[str, Any]:
        """The whole file by Slurm's own connections."""
        addresses = [address(number) for number in range(self.flags.nodes)]
        with (
            tempfile.TemporaryDirectory(dir=self.root) as root,
            slurm_nodes(Path(root), ORIGIN_ADDRESS, addresses) as slurm,
        ):
            before = self.net.sent("origin")
            seconds = slurm.send(self.root / "b.sqsh", nodes)
            wire = self.net.sent("origin") - before
        size = (self.root / "b.sqsh").stat().st_size
        return {
            "nodes": nodes,
            "right": nodes,
            "seconds": seconds,
            "origin": wire,
            "peers": nodes * size - min(wire, nodes * size),
            "wire": wire,
        }


@dataclass(frozen=True)
class ConfigSource:
    data: bytes

    def open(self, offset: int) -> Iterator[bytes]:
        yield self.data[offset:]


def put_image(client: RegistryClient) -> None:
    """An image without layers, under the tags of both builds."""
    for tag in ("a", "b"):
        config = json.dumps({"rootfs": {"diff_ids": []}, "tag": tag}).encode()
        blob = BlobTransfer(digest_of(config), len(config), ConfigSource(config))
        deliver_blobs(Repository(client, REPOSITORY), [blob], "bench", silent)
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest_of(config),
                    "size": len(config),
                },
                "layers": [],
            }
        ).encode()
        client.put_manifest(REPOSITORY, tag, Manifest(OCI_MANIFEST, digest_of(raw), raw))


def kill_one(bench: Bench) -> Callable[[list[subprocess.Popen[str]]], None]:
    """The third of the nodes, when it has a quarter of the file.

    Sooner, on a busy machine, it has not come yet, and is waited for by the others for a minute.
    """

    def disturb(running: list[subprocess.Popen[str]]) -> None:
        victim = min(2, len(running) - 1)
        folder, quarter = bench.root / f"n{victim}", bench.flags.mb * 10**6 // 4
        while sum(p.stat().st_blocks * 512 for p in folder.glob(".*partial")) < quarter:
            time.sleep(0.1)
        running[victim].send_signal(signal.SIGKILL)

    return disturb


def cut_origin(bench: Bench) -> Callable[[list[subprocess.Popen[str]]], None]:
    """Gone for three seconds, connections and all."""

    def disturb(running: list[subprocess.Popen[str]]) -> None:
        del running
        time.sleep(0.25 * bench.flags.changed / bench.flags.origin_rate + 1)
        bench.stop_origin()
        time.sleep(3)
        bench.start_origin()

    return disturb


def cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    nodes = bench.flags.nodes
    return {
        "first fetch, one node": lambda: bench.run(1, "a", older=False),
        f"first fetch, {nodes} nodes": lambda: bench.run(nodes, "a", older=False),
        "next build, one node": lambda: bench.run(1, "b", older=True),
        f"next build, {nodes} nodes": lambda: bench.run(nodes, "b", older=True),
        "first fetch, a node killed": lambda: bench.run(
            nodes, "a", older=False, disturb=kill_one(bench)
        ),
        "next build, the origin gone for 3 s": lambda: bench.run(
            nodes, "b", older=True, disturb=cut_origin(bench)
        ),
        "first fetch, a piece corrupted": lambda: bench.run(nodes, "a", older=False, corrupt=1),
        "whole file in one stream, one node": lambda: bench.whole_file(1, 1),
        f"whole file in one stream, {nodes} nodes": lambda: bench.whole_file(nodes, 1),
        "whole file in eight ranges, one node": lambda: bench.whole_file(1, 8),
        f"whole file in eight ranges, {nodes} nodes": lambda: bench.whole_file(nodes, 8),
        "sbcast, one node": lambda: bench.sbcast(1),
        f"sbcast, {nodes} nodes": lambda: bench.sbcast(nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--mb", type=int, default=400)
    parser.add_argument("--changed", type=int, default=100, help="MB of the second build")
    parser.add_argument("--node-rate", type=float, default=10)
    parser.add_argument("--origin-rate", type=float, default=20)
    parser.add_argument("--only", action="append", default=[], help="cases whose names have this")
    parser.add_argument("--folder", default=None, help="for the files of all nodes")
    flags = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=flags.folder)))
        net = stack.enter_context(network(flags.nodes, flags.node_rate, flags.origin_rate))
        bench = Bench(root, flags, net)
        bench.make_files()
        stack.enter_context(bench.origin())
        time.sleep(1)
        print("| | nodes | s | from the origin MB | from nodes MB | on the origin's wire MB |")
        print("|---|---|---|---|---|---|")
        for name, run in cases(bench).items():
            if flags.only and not any(word in name for word in flags.only):
                continue
            row = run()
            moved = (f"{row[key] / 1e6:.0f}" for key in ("origin", "peers", "wire"))
            print(
                f"| {name} | {row['right']} of {row['nodes']} | {row['seconds']:.1f} |"
                f" {' | '.join(moved)} |",
                flush=True,
            )
            with suppress(OSError):
                os.sync()


if __name__ == "__main__":
    main()
