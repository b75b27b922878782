"""What becomes of pushes by Slipway's own client while the network, the registry or a signal breaks
them: no engine takes part.

    .venv/bin/python -m bench.push_faults --work DIR [--only WORD] [--pushes 200] [--seed 1]

Root (for the full disk) and docker-registry; twenty minutes for all, DIR takes 300 MB. Each push
is a process of its own (bench/one_push.py): `deliver_blobs` and a tag, as `push --no-engine` ends,
31 layers and a configuration, 36 MB, of which the registry has nothing. It goes through a TCP link
(tests/support/registry/link.py) or, for what ECR says, through an ECR front door, to a real
Distribution. After each the registry itself is asked: the tag names the expected digest and every
blob of it can be read and has its digest, or there is no such tag. "sent" is what left the client,
heads of requests included, over what a push without a fault sends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.hostile_registry import answering
from bench.registry_quota import quota
from slipway.core import anonymous
from slipway.registry import (
    OCI_MANIFEST,
    Manifest,
    RegistryClient,
    digest_of,
    prepare_repository,
)
from tests.support.registry.ecr_front_door import REGION, Door, aws_api, ecr
from tests.support.registry.link import Link, linked
from tests.support.registry.open_registry import OpenRegistry

SIZES = [9_000_000, 5_000_000, 4_000_000, 3_000_000, 2_500_000, 2_000_000, 1_500_000, 1_200_000]
SIZES += [1_000_000, 900_000, 800_000, 700_000, 600_000, 500_000, 400_000, 300_000]
SIZES += [200_000] * 8 + [70_000] * 7
"""Bytes of the layers: as those of `local-ds0.19.8` are spread, half as large."""


@dataclass
class Outcome:
    """One push, perhaps of several processes. `state` is what the registry has in the end."""

    state: str  # "whole", "none", "BROKEN"
    sent: float  # times what is needed
    memory: int  # kB, the most of its processes
    seconds: float
    said: str = ""


@dataclass
class Bench:
    """The registry, the image, and what was measured of it."""

    work: Path
    random: random.Random
    registry: OpenRegistry = field(init=False)
    host: str = field(init=False)
    manifest: Manifest = field(init=False)
    flawless: int = 0

    def __post_init__(self) -> None:
        self.folder = self.work / "image"
        self.registry = OpenRegistry(self.work / "registry")
        self.registry.start()
        self.host = self.registry.host
        self.manifest = self._make_image()

    def _make_image(self) -> Manifest:
        self.folder.mkdir(parents=True, exist_ok=True)
        layers = [self._blob(self.random.randbytes(size)) for size in SIZES]
        config = self._blob(
            json.dumps({"rootfs": {"diff_ids": [layer["digest"] for layer in layers]}}).encode()
        )
        content = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
        raw = json.dumps({**content, "config": config, "layers": layers}).encode()
        (self.folder / "manifest").write_bytes(raw)
        return Manifest(OCI_MANIFEST, digest_of(raw), raw)

    def _blob(self, data: bytes) -> dict[str, object]:
        digest = digest_of(data)
        (self.folder / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def start(self, host: str, path: str, *, in_ecr: bool = False) -> subprocess.Popen[str]:
        """A push under way."""
        command = [sys.executable, "-m", "bench.one_push", host, path, str(self.folder)]
        return subprocess.Popen(
            [*command, "ecr"] if in_ecr else command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def state(self, path: str) -> str:
        """What a puller gets: the whole image, none, or something else."""
        with RegistryClient(self.host, anonymous) as client:
            digest = client.head(path, "v1")
            if digest is None:
                return "none"
            if digest != self.manifest.digest:
                return "BROKEN"
            content = client.manifest(path, "v1").json()
            for part in [*content["layers"], content["config"]]:
                for _ in client.blob_stream(path, part["digest"], part["size"]):
                    pass  # the client compares digest and size
        return "whole"

    def once(self, link: Link, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
             path: str = "") -> Outcome:  # fmt: skip
        """One push through the link, as it is set up."""
        path = path or f"faults/{uuid.uuid4().hex}"
        started = time.monotonic()
        with self.start(link.host, path) as process:
            if meanwhile:
                meanwhile(process)
            said, _ = process.communicate()
        memory = int((re.findall(r"HIGHEST (\d+)", said) or ["0"])[-1])
        sent = link.sent / (self.flawless or 1)
        failed = re.findall(r"FAILED (.*)|^\w*Error.*", said)
        seconds = time.monotonic() - started
        return Outcome(self.state(path), sent, memory, seconds, failed[-1] if failed else "")


def until(link: Link, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many bytes have been sent, or the push has ended."""
    while link.sent < count and process.poll() is None:
        time.sleep(0.002)


Row = tuple[str, list[Outcome]]


def cuts(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """Cut at random points; each second one close to where a piece of a message ended."""
    edges = link.edges
    total = link.sent + link.received
    for number, name in ((1, "cut once"), (4, "cut four times")):
        outcomes = []
        for turn in range(pushes if number == 1 else pushes // 10):
            near = [bench.random.choice(edges) + bench.random.randint(-2, 2) for _ in range(number)]
            anywhere = [bench.random.randrange(total) for _ in range(number)]
            link.clear(*(near if turn % 2 else anywhere))
            outcomes.append(bench.once(link))
        yield f"{name} at random points", outcomes


def slow(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """A slow link, and one that is silent for a while."""
    del pushes
    link.clear(rate=1.5e6)
    yield "slow link, 1.5 MB/s", [bench.once(link)]
    link.clear()
    link.silence, link.silent_after = 45.0, bench.flawless // 2
    yield "silent for 45 s in the middle", [bench.once(link)]


def lost(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """The registry forgets its upload sessions, or is killed and comes back."""
    storage = bench.registry.storage

    def forget(process: subprocess.Popen[str]) -> None:
        until(link, bench.random.randrange(bench.flawless), process)
        for folder in storage.rglob("_uploads"):
            shutil.rmtree(folder, ignore_errors=True)

    def restart(process: subprocess.Popen[str]) -> None:
        until(link, bench.random.randrange(bench.flawless), process)
        bench.registry.stop(signal.SIGKILL)
        time.sleep(1.0)
        bench.registry.start()

    for name, meanwhile in (("upload sessions lost", forget), ("registry killed, 1 s", restart)):
        outcomes = []
        for _ in range(max(1, pushes // 20)):
            link.clear()
            outcomes.append(bench.once(link, meanwhile))
        yield name, outcomes


def ended(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """The push itself is ended at a random point, and run again."""
    for name, number in (("Ctrl-C", signal.SIGINT), ("kill -9", signal.SIGKILL)):
        first, then = [], []
        for _ in range(max(1, pushes // 20)):
            path = f"faults/{uuid.uuid4().hex}"
            link.clear()

            def end(process: subprocess.Popen[str], sent: int = number) -> None:
                until(link, bench.random.randrange(1, bench.flawless), process)
                process.send_signal(sent)

            first.append(bench.once(link, end, path))
            then.append(bench.once(link, path=path))  # counts the bytes of both
        yield f"{name}", first
        yield f"{name}, run again (bytes of both)", then


def twice(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """Two machines push one image at once."""
    outcomes = []
    for _ in range(max(1, pushes // 20)):
        path = f"faults/{uuid.uuid4().hex}"
        link.clear()

        def second(process: subprocess.Popen[str], path: str = path) -> None:
            del process
            with bench.start(link.host, path) as other:
                other.communicate()
            assert other.returncode == 0

        outcomes.append(bench.once(link, second, path))
    yield "two at once (bytes of both)", outcomes


def full_disk(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """The registry's disk is full in the middle; then there is room, and the push is run again."""
    del pushes
    with quota(bench.work, 160 << 20) as disk:
        folder = disk.folder
        other = Bench(folder, random.Random(7))
        other.flawless = bench.flawless
        with linked(other.host) as own:
            ballast = folder / "ballast"
            room = shutil.disk_usage(folder).free - sum(SIZES) // 2
            with ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, room)
            path = "faults/full"
            yield "registry's disk full", [other.once(own, path=path)]
            ballast.unlink()
            own.clear()
            yield "the same, run again with room", [other.once(own, path=path)]
        other.registry.stop()
    del link


UPLOAD, MANIFEST = "/blobs/uploads/", "/manifests/v1"
SAID: dict[str, list[tuple[str, str, str, dict[str, object]]]] = {
    "429 with Retry-After, each kind of request": [
        (verb, path, "status", {"status": 429, "code": "TOOMANYREQUESTS", "retry_after": "1"})
        for verb, path in (
            ("HEAD", "/blobs/"),
            ("POST", UPLOAD),
            ("PATCH", UPLOAD),
            ("PUT", UPLOAD),
            ("PUT", MANIFEST),
        )
    ],
    "500, five of five requests, thrice": [
        (verb, path, "status", {"status": 500, "count": 5})
        for verb, path in (("HEAD", "/blobs/"), ("POST", UPLOAD), ("PUT", MANIFEST))
    ],
    "cut within a piece": [
        ("PATCH", UPLOAD, "reset", {"after_bytes": size}) for size in (1, 300_000, 600_000)
    ],
    "answer to a piece lost": [("PATCH", UPLOAD, "lose", {})],
    "503 on pieces, twice": [("PATCH", UPLOAD, "status", {"count": 2})],
    "token expires between blobs": [("POST", UPLOAD, "expire", {"count": 4})],
    "token expires in mid-blob": [("PATCH", UPLOAD, "expire", {})],
    "wrong digest sent back for the manifest": [("PUT", MANIFEST, "misname", {"count": 99})],
    "a piece is damaged on the way": [("PATCH", UPLOAD, "corrupt", {})],
    "answers lost: blob and manifest": [("PUT", UPLOAD, "lose", {}), ("PUT", MANIFEST, "lose", {})],
}


def in_ecr(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """What an ECR says, by a door before the same registry."""
    del link
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_REGION=REGION)
    with aws_api() as api, ecr(bench.host, api) as door:
        os.environ.update(AWS_ENDPOINT_URL=api, AWS_ENDPOINT_URL_ECR=api)
        needed = through(bench, door).sent  # of bodies alone here
        for name, rules in SAID.items():
            outcomes = []
            for _ in range(max(1, pushes // 40)):
                for rule in rules:
                    method, path, action, rest = rule
                    door.fault(method, path, action, **rest)
                outcome = through(bench, door)
                outcome.sent /= needed
                outcomes.append(outcome)
            yield name, outcomes


def through(bench: Bench, door: Door) -> Outcome:
    """One push through the door, whose faults are cleared afterwards."""
    path = f"faults/{uuid.uuid4().hex}"
    prepare_repository(door.target, path)
    started = time.monotonic()
    with bench.start(door.host, path, in_ecr=True) as process:
        said, _ = process.communicate()
    sent = float(door.faults.uploaded())
    seconds = time.monotonic() - started
    door.faults.clear()
    failed = re.findall(r"FAILED (.*)", said)
    memory = int(re.findall(r"HIGHEST (\d+)", said)[-1])
    return Outcome(bench.state(path), sent, memory, seconds, failed[-1] if failed else "")


def hostile(bench: Bench, link: Link, pushes: int) -> Iterator[Row]:
    """A registry whose answers do not end, send on without end, or are of another kind."""
    del link, pushes
    endless: dict[str, object] = {"endless": True}
    sent_on: dict[str, object] = {"status": 307}
    kinds: dict[str, dict[str, dict[str, object]]] = {
        "answers without end to POST": {"POST": {"status": 202, **endless}},
        "answers without end to HEAD and GET": {"HEAD": {"status": 500}, "GET": endless},
        "redirects without end": {"HEAD": sent_on, "GET": sent_on},
        "a web page for everything": {
            verb: {"status": 200, "page": True} for verb in ("HEAD", "GET", "POST")
        },
        "token service without end": {
            "HEAD": {"status": 401}, "POST": {"status": 401}, "GET": endless
        },
    }  # fmt: skip
    for name, answers in kinds.items():
        with answering(answers) as host:
            started = time.monotonic()
            with bench.start(host, "faults/hostile") as process:
                said, _ = process.communicate()
            memory = int(re.findall(r"HIGHEST (\d+)", said)[-1])
            failed = re.findall(r"FAILED (.*)", said)
            state = "none" if failed else "BROKEN"
            yield (
                f"hostile: {name}",
                [Outcome(state, 0.0, memory, time.monotonic() - started, *failed[-1:])],
            )


GROUPS = (cuts, lost, ended, twice, full_disk, in_ecr, hostile, slow)


def main() -> int:
    """Print the table; 1 where a tag named something that is not the image."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="a word of a group: " + ", ".join(names()))
    parser.add_argument("--pushes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bench = Bench(options.work.resolve(), random.Random(options.seed))
    table = Table("fault", "pushes", "whole", "none", "broken", "sent", "most", "memory", "seconds")
    broken = 0
    try:
        with linked(bench.host) as link:
            flawless = bench.once(link)
            bench.flawless, flawless.sent = link.sent, 1.0
            show(table, ("no fault", [flawless]))
            for group in GROUPS:
                if options.only in group.__name__:
                    for row in group(bench, link, options.pushes):
                        broken += show(table, row)
    finally:
        bench.registry.stop()
    Console(width=120).print(table)
    return int(broken > 0)


def names() -> list[str]:
    """The groups."""
    return [group.__name__ for group in GROUPS]


def show(table: Table, row: Row) -> int:
    """One line of the table; how many pushes left something broken."""
    name, outcomes = row
    states = [outcome.state for outcome in outcomes]
    sent = [outcome.sent for outcome in outcomes]
    cells = [
        name,
        str(len(outcomes)),
        *(str(states.count(state)) for state in ("whole", "none", "BROKEN")),
        f"{statistics.mean(sent):.3f}",
        f"{max(sent):.3f}",
        f"{max(outcome.memory for outcome in outcomes) / 1e3:.0f} MB",
        f"{statistics.median(outcome.seconds for outcome in outcomes):.1f}",
    ]
    table.add_row(*cells)
    print(" | ".join(cells), flush=True)
    for said in sorted({outcome.said for outcome in outcomes if outcome.said})[:3]:
        print(f"    {said}", flush=True)
    return states.count("BROKEN")


if __name__ == "__main__":
    sys.exit(main())
