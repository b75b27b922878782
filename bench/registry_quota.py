"""Images without an engine on a large base: over a link that is held, and below a quota.

    .venv/bin/python -m bench.registry_quota --base STATE --seed STATE --work DIR [--only WORD]

The first STATE has a local registry with the embedded default base as `base:1`, the second the
wheels of two images (`./inv build local-ds0.19.8 local-ds0.19.2 --no-engine ...`). Root,
docker-registry, tc, 20 GB below DIR; 20 minutes. The base gets eleven layers as those of a DLC are
spread: 10 GB unpacked, half of that compressed. Everything runs in a network namespace of its own,
where `tc` holds what the base's registry sends to the rate of the row. What Slipway writes lies on
a loop-mounted ext4 of the row's size: its state folder and TMPDIR. Registries stand outside of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.core import Project, anonymous, sha256_file, silent
from slipway.pipeline import Checkout
from slipway.registry import (
    BlobTransfer,
    FileBlob,
    Manifest,
    MemoryBlob,
    RegistryClient,
    Repository,
    copy_image,
    credentials_for,
    deliver_blobs,
    digest_of,
    start_local_registry,
    stop_local_registry,
)
from tests.support.clones import Clone
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.registry.open_registry import OpenRegistry

ROOT = Path(__file__).parents[1]
IMAGE, NEXT = "local-ds0.19.8", "local-ds0.19.2"
PORT = 5999  # of the registry that serves the base
LAYERS_MB = [80, 500, 200, 2600, 400, 2700, 1200, 700, 400, 250, 70]
LARGE, SMALL = 40_000_000, 20_000  # bytes of files: libraries, and all that is Python
WORDS = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}


@dataclass
class Quota:
    """A file system of so many bytes, and how much of it was taken at most."""

    folder: Path
    taken: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def used(self) -> int:
        """Bytes now."""
        stats = os.statvfs(self.folder)
        return (stats.f_blocks - stats.f_bfree) * stats.f_frsize

    def watch(self) -> None:
        """Ten times a second, until it has ended."""
        start = self.used()
        while not self.ended.wait(0.1):
            self.taken = max(self.taken, self.used() - start)


@contextmanager
def quota(work: Path, size: int) -> Iterator[Quota]:
    """A loop-mounted ext4 of `size` bytes; its file is sparse and gone afterwards."""
    image, folder = work / "quota.ext4", work / "quota"
    folder.mkdir(exist_ok=True)
    with image.open("wb") as stream:
        stream.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m0", "-E", "nodiscard", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    limit = Quota(folder)
    watcher = threading.Thread(target=limit.watch)
    watcher.start()
    try:
        yield limit
    finally:
        limit.ended.set()
        watcher.join()
        subprocess.run(["umount", str(folder)], check=True)
        image.unlink()


def hold_link(megabytes: float | None) -> None:
    """What the base's registry sends, to so many MB a second; None: as fast as it goes."""
    rate = f"{int(megabytes * 8)}mbit" if megabytes else "100gbit"
    if not (made := b"1:30" in subprocess.check_output(["tc", "class", "show", "dev", "lo"])):
        run("tc qdisc add dev lo root handle 1: htb default 10")
        run("tc class add dev lo parent 1: classid 1:10 htb rate 100gbit quantum 60000")
    run(f"tc class replace dev lo parent 1: classid 1:30 htb rate {rate} burst 1mb quantum 60000")
    if not made:
        base = f"match ip sport {PORT} 0xffff"
        run(f"tc filter add dev lo parent 1: protocol ip u32 {base} classid 1:30")


def run(command: str) -> None:
    """A command that must succeed."""
    subprocess.run(command.split(), check=True)


class Bench:
    """The base, its registry, and a target registry, both outside of the quota."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.work: Path = options.work.resolve()
        self.small: Path = options.base.resolve()
        self.seed: Path = options.seed.resolve()
        self.source = OpenRegistry(self.work / "source", PORT)
        self.target = Project(ROOT, self.work / "target")
        checkout = Checkout.at(ROOT)
        base = {image.name: image for image in checkout.matrix.images}[IMAGE].base
        self.path, self.tag = base.repository, base.tag
        self.source.start()
        self.host = self.source.host

    def make_base(self) -> int:
        """The large base in its registry, made of the small one; its compressed bytes."""
        with RegistryClient(self.host, anonymous) as client:
            if client.head(self.path, self.tag):
                return client.manifest(self.path, self.tag).size
            small = Project(ROOT, self.small)
            there = start_local_registry(small)
            with RegistryClient(there.host, credentials_for(project=small)) as origin:
                copy_image(Repository(origin, "base"), "1", Repository(client, self.path), "small")
            stop_local_registry(small)
            manifest = client.manifest(self.path, "small")
            config, content = client.config(self.path, manifest), manifest.json()
            for number, megabytes in enumerate(LAYERS_MB):
                diff_id, part = self._layer(client, number, megabytes * 1_000_000)
                config["rootfs"]["diff_ids"].append(diff_id)
                config["history"].append({"created_by": f"layer {number}"})
                content["layers"].append({**content["layers"][0], **part})
            raw = json.dumps(config).encode()
            self._put(client, BlobTransfer(digest_of(raw), len(raw), MemoryBlob(raw)))
            content["config"] |= {"digest": digest_of(raw), "size": len(raw)}
            document = json.dumps(content).encode()
            made = Manifest(manifest.media_type, digest_of(document), document)
            client.put_manifest(self.path, self.tag, made)
            return made.size

    def _put(self, client: RegistryClient, blob: BlobTransfer) -> None:
        deliver_blobs(Repository(client, self.path), [blob], "base", silent)

    def _layer(
        self, client: RegistryClient, number: int, size: int
    ) -> tuple[str, dict[str, object]]:
        sizes = [LARGE] * (size * 7 // 10 // LARGE)
        sizes += [SMALL] * ((size - sum(sizes)) // SMALL)
        path, plain = self.work / "layer", hashlib.sha256()
        with path.open("wb") as stream:
            for piece in packed_layer(f"opt/data/{number}", sizes, plain):
                stream.write(piece)
        digest, length = f"sha256:{sha256_file(path)}", path.stat().st_size
        self._put(client, BlobTransfer(digest, length, FileBlob(path)))
        path.unlink()
        return f"sha256:{plain.hexdigest()}", {"digest": digest, "size": length}

    def state(self, folder: Path, *, notes: bool) -> Path:
        """A state folder with the seed's wheels; `notes`: the base's packages are known."""
        state = folder / "state"
        for part in ("wheels", "built", "tools", *(["bases"] if notes else [])):
            if (self.seed / "cache" / part).exists():
                shutil.copytree(self.seed / "cache" / part, state / "cache" / part)
        (folder / "tmp").mkdir()
        (state / "registry").symlink_to(self.target.registry)
        return state

    def keep_notes(self, state: Path) -> None:
        """What was read of the base, for the next rows."""
        shutil.copytree(
            state / "cache" / "bases", self.seed / "cache" / "bases", dirs_exist_ok=True
        )

    def empty_target(self) -> str:
        """The target registry, with nothing in it; its host."""
        stop_local_registry(self.target)
        shutil.rmtree(self.target.registry, ignore_errors=True)
        return start_local_registry(self.target, 5998).host

    def close(self) -> None:
        """End both registries."""
        self.source.stop()
        stop_local_registry(self.target)


def packed_layer(folder: str, sizes: list[int], plain: hashlib._Hash) -> Iterator[bytes]:
    """A layer's gzip form: files that are noise in their first half and zeros in the other.

    Noise is stored and zeros are compressed, as quickly as the disk takes them; one gzip member.
    """
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    checksum = length = 0

    def deflate(data: bytes, level: int) -> bytes:
        nonlocal checksum, length
        plain.update(data)
        checksum, length = zlib.crc32(data, checksum), length + len(data)
        stream = zlib.compressobj(level, zlib.DEFLATED, -15)
        return stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)

    held = bytearray()
    for name in (f"{folder}/", *(f"{folder}/{number}/" for number in range(50))):
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        held += member.tobuf()
    yield deflate(bytes(held), 1)
    for at, size in enumerate(sizes):
        member = tarfile.TarInfo(f"{folder}/{at % 50}/{at}")
        member.size = size
        yield deflate(member.tobuf() + os.urandom(size // 2), 0)
        yield deflate(bytes(size - size // 2 + -size % tarfile.BLOCKSIZE), 1)
    yield deflate(bytes(2 * tarfile.BLOCKSIZE), 1)
    yield zlib.compressobj(1, zlib.DEFLATED, -15).flush()
    yield struct.pack("<II", checksum, length & 0xFFFFFFFF)


def inv(root: Path, state: Path, tmp: Path, *words: str) -> tuple[float, str]:
    """`inv` with these words: seconds, and what it said. SystemExit where it failed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(root), *words],
        cwd=root,  # of the checkout that is meant, before any other of PYTHONPATH
        env={**os.environ, "SLIPWAY_STATE": str(state), "TMPDIR": str(tmp)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return time.monotonic() - started, done.stdout + done.stderr


def sent(text: str) -> float:
    """Megabytes that the lines of a run say were sent."""
    return sum(
        float(number) * WORDS[unit] for number, unit in re.findall(r"([\d.]+) (k?M?G?)B sent", text)
    )


Rows = Iterator[tuple[str, dict[str, float]]]


def known(bench: Bench) -> Rows:
    """The base in another repository of the target's registry: new, next variant, unchanged."""
    host = bench.empty_target()
    login = credentials_for(project=bench.target)
    with RegistryClient(bench.host, anonymous) as a, RegistryClient(host, login) as b:
        copy_image(Repository(a, bench.path), bench.tag, Repository(b, bench.path), bench.tag)
    base = f"registry://{host}/{bench.path}:{bench.tag}"
    with quota(bench.work, 1_000_000_000) as limit:
        state, tmp = bench.state(limit.folder, notes=False), limit.folder / "tmp"
        words = ("--no-engine", "--base-from", base)
        names = {
            "first sight of the base, new image": IMAGE,
            "next variant": NEXT,
            "unchanged": IMAGE,
        }
        for name, image in names.items():
            before, limit.taken = limit.used(), 0
            seconds, said = inv(ROOT, state, tmp, "push", image, *words)
            yield (
                name,
                {"s": seconds, "MB sent": sent(said), "MB disk": (limit.used() - before) / 1e6},
            )
            bench.keep_notes(state)
    with quota(bench.work, 1_000_000_000) as limit:
        state, tmp = bench.state(limit.folder, notes=True), limit.folder / "tmp"
        forget(bench, host)
        seconds, said = inv(ROOT, state, tmp, "push", IMAGE, *words)
        yield "new image", {"s": seconds, "MB sent": sent(said), "MB disk": limit.taken / 1e6}


def forget(bench: Bench, host: str) -> None:
    """The target has the base, and no image of ours."""
    del host
    stop_local_registry(bench.target)
    for folder in list(bench.target.registry.rglob("v2/repositories/sagemaker-slipway")):
        shutil.rmtree(folder)
    start_local_registry(bench.target, 5998)


def held(bench: Bench) -> Rows:
    """The base in another registry, over a link of 100 MB/s, on a disk of 1 GB."""
    for rate in (100.0, None):
        bench.empty_target()
        hold_link(rate)
        with quota(bench.work, 1_000_000_000) as limit:
            state, tmp = bench.state(limit.folder, notes=True), limit.folder / "tmp"
            base = f"registry://{bench.host}/{bench.path}:{bench.tag}"
            words = ("push", IMAGE, "--no-engine", "--base-from", base)
            seconds, said = inv(ROOT, state, tmp, *words)
            minutes, seconds_of_it = re.findall(r"push +(?:(\d+) min )?([\d.]+) s", said)[0]
            took = 60 * int(minutes or 0) + float(seconds_of_it)
            size = sent(said)
            name = f"link of {rate:.0f} MB/s" if rate else "link without a limit"
            yield f"new image, base in another registry, {name}", {
                "s": seconds, "s of it pushing": took, "MB sent": size, "MB/s": size / took,
                "MB disk": limit.taken / 1e6,
            }  # fmt: skip
    hold_link(None)


def file(bench: Bench) -> Rows:
    """The image and its .sqsh with nothing cached, all that is written on 14 GB."""
    bench.empty_target()
    hold_link(None)
    with quota(bench.work, 14_000_000_000) as limit:
        state, tmp = bench.state(limit.folder, notes=False), limit.folder / "tmp"
        base = f"registry://{bench.host}/{bench.path}:{bench.tag}"
        words = (IMAGE, "--no-engine", "--base-from", base)
        _, said = inv(ROOT, state, tmp, "plan", *words)
        print(next(line for line in said.splitlines() if "disk" in line), flush=True)
        limit.taken = 0
        seconds, said = inv(ROOT, state, tmp, "sqsh", *words)
        (made,) = (state / "sqsh").glob("*.sqsh")
        inv(ROOT, state, tmp, "sqsh.verify", str(made))
        yield "image and .sqsh, quota of 14 GB", {
            "s": seconds, "MB sent": sent(said), "MB .sqsh": made.stat().st_size / 1e6,
            "MB disk": limit.taken / 1e6,
        }  # fmt: skip


def many(bench: Bench) -> Rows:
    """Twelve images on three bases, which are in another registry."""
    host = bench.empty_target()
    hold_link(None)
    root = bench.work / "clone"
    shutil.rmtree(root, ignore_errors=True)
    clone = Clone.make(root, bench.work / "many")
    put_bases(bench.host, "many/b", 3, 300_000_000, bench.work / "many-bases")
    shutil.rmtree(bench.work / "many-bases")
    names = write_matrix(clone, bench.host, "many/b", bases=3, groups=4)
    with quota(bench.work, 1_000_000_000) as limit:
        state, tmp = bench.state(limit.folder, notes=False), limit.folder / "tmp"
        words = ("push", *names, "--no-engine", "--unlocked")
        seconds, said = inv(root, state, tmp, *words)
        yield "12 images on 3 bases of 300 MB", {
            "s": seconds, "MB sent": sent(said), "MB disk": limit.taken / 1e6,
        }  # fmt: skip
    shutil.rmtree(root)
    del host


GROUPS = (known, held, file, many)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="state folder; see above")
    parser.add_argument("--seed", type=Path, required=True, help="state folder with the wheels")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="known, held, file or many")
    options = parser.parse_args()
    if "SLIPWAY_BENCH_ALONE" not in os.environ:
        os.environ["SLIPWAY_BENCH_ALONE"] = "1"
        os.execvp(
            "unshare", ["unshare", "--net", sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        )
    run("ip link set lo up")
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    table = Table("what", "figures")
    try:
        print(f"base: {bench.make_base() / 1e6:.0f} MB compressed", flush=True)
        for group in GROUPS:
            if options.only not in group.__name__:
                continue
            for name, figures in group(bench):
                text = ", ".join(f"{value:.1f} {unit}" for unit, value in figures.items())
                text += f" (load {os.getloadavg()[0]:.0f})"
                table.add_row(name, text)
                print(f"{name}: {text}", flush=True)
    finally:
        bench.close()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
