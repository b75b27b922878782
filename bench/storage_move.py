"""Moving a data-root to another disk: `storage.move` against `cp -a` and `rsync -aHAXS`.

    .venv/bin/python -m bench.storage_move               # root, dockerd; 5 GB, twice that on disk
    .venv/bin/python -m bench.storage_move --size 1 --rounds 1

A dockerd of its own gets images of that size: many small files and a few large ones, as training
images have. Each round runs the three in turn, each from a cold cache and until the data is on the
target disk (an ext4 of its own). "copy and compare" is the part of the move that the other two do,
and the comparison that they do not; "whole move" has stopping and starting the daemon, its checks
and a trial container in it as well.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.core import Event, human_bytes, human_seconds, measure
from slipway.engine import import_rootfs
from slipway.storage import delete_kept
from tests.support.storage.box import Box, Disk, box
from tests.support.storage.steps import move, restore, room_of

GB = 10**9
IMAGE = 500_000_000  # bytes of one image


def sizes(total: int, rng: random.Random) -> Iterator[int]:
    """File sizes like those of a training image: most are small, most bytes are in large ones."""
    left = total
    while left > 0:
        kind = rng.random()
        if kind < 0.92:
            size = rng.randrange(200, 16_000)
        elif kind < 0.998:
            size = rng.randrange(16_000, 400_000)
        else:
            size = rng.randrange(2_000_000, 12_000_000)
        size = min(size, left)
        left -= size
        yield size


class Rootfs(io.RawIOBase):
    """A tar of one image, made while it is read."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self._noise = rng.randbytes(16 << 20)
        self._sizes = enumerate(sizes(IMAGE, rng))
        self._rng = rng
        self._buffer = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._buffer) < size and not self._ended:
            self._buffer += self._next()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _next(self) -> bytes:
        try:
            number, size = next(self._sizes)
        except StopIteration:
            self._ended = True
            return bytes(1024)
        entry = tarfile.TarInfo(f"opt/lib/{number // 500}/{number // 50}/{number}")
        entry.size, entry.mode = size, 0o644
        start = self._rng.randrange(len(self._noise) - size)
        data = self._noise[start : start + size]
        return entry.tobuf() + data + bytes(-size % 512)


def fill(made: Box, total: int) -> None:
    with made.engine() as engine:
        for number in range(max(1, round(total / IMAGE))):
            import_rootfs(engine, Rootfs(number), f"bench/image:{number}")  # type: ignore[arg-type]
        engine.client.api.create_volume("kept")  # so that the move copies


def cold() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def clean(disk: Disk) -> None:
    for path in disk.place.iterdir():
        if path.name != "lost+found":
            shutil.rmtree(path)
    subprocess.run(["fstrim", str(disk.place)], check=False, capture_output=True)


def time_tool(disk: Disk, command: list[str]) -> float:
    clean(disk)
    cold()
    started = time.monotonic()
    subprocess.run([*command, f"{disk.place}/copy"], check=True)
    subprocess.run(["sync", "--file-system", str(disk.place)], check=True)
    return time.monotonic() - started


def time_move(made: Box, disk: Disk) -> tuple[float, float]:
    """Seconds for copying and comparing, and for the whole move."""
    clean(disk)
    cold()
    marks: dict[str, float] = {}
    dropping = 0.0

    def on_event(event: Event) -> None:
        nonlocal dropping
        if event.kind != "start":
            return
        marks[event.step] = time.monotonic()
        if event.step == "copying":  # cold again: planning has looked at every file
            cold()
            dropping = time.monotonic() - marks["copying"]
            marks["copying"] += dropping

    started = time.monotonic()
    assert move(made, disk.place, on_event=on_event) is not None
    whole = time.monotonic() - started - dropping
    restore(made)
    with room_of(made).locked("bench"):
        delete_kept(room_of(made), lambda _: None)
    return marks["giving the copy its name"] - marks["copying"], whole


def rounds(made: Box, disk: Disk, count: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = defaultdict(list)
    root = str(made.data_root)
    rsync = shutil.which("rsync")
    for _ in range(count):
        made.kill_daemons()
        took["cp -a"].append(time_tool(disk, ["cp", "-a", root]))
        if rsync:
            command = [rsync, "-aHAXS", "--numeric-ids", f"{root}/"]
            took["rsync -aHAXS"].append(time_tool(disk, command))
        made.start()
        copied, whole = time_move(made, disk)
        took["storage.move: copy and compare"].append(copied)
        took["storage.move: whole move"].append(whole)
    return took


def show(took: dict[str, list[float]], bytes_: int, entries: int) -> None:
    others = [statistics.median(took[name]) for name in ("cp -a", "rsync -aHAXS") if took[name]]
    fastest = min(others)
    table = Table(title=f"{human_bytes(bytes_)}, {entries} files", box=None, title_justify="left")
    for header in ("", "median", "each round", "against the faster of cp and rsync"):
        table.add_column(header)
    for name, seconds in took.items():
        if not seconds:
            continue
        middle = statistics.median(seconds)
        each = ", ".join(f"{value:.1f}" for value in seconds)
        table.add_row(name, human_seconds(middle), each, f"{middle / fastest:.2f}x")
    console = Console(width=110)
    console.print(table)
    if not took["rsync -aHAXS"]:
        console.print("rsync is not installed, so only cp -a was compared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=float, default=5, help="GB in the data-root (5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--where", default=tempfile.gettempdir(), help="folder for it all")
    arguments = parser.parse_args()
    total = round(arguments.size * GB)
    with box(parent=arguments.where) as made:
        made.start()
        fill(made, total)
        size = measure(made.data_root)
        with made.disk("ext4", size.bytes + size.bytes // 3 + GB // 4) as disk:
            show(rounds(made, disk, arguments.rounds), size.bytes, size.entries)


if __name__ == "__main__":
    main()
