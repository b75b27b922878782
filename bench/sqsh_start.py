"""What a start from a .sqsh costs: `python -m bench.sqsh_start FILE... [-- CMD ARGS...]`.

Each FILE lies on storage that takes its time for each request (`--delays`, milliseconds), is
mounted by each reader (the kernel through a loop device; squashfuse) and CMD is run in it, cold:
nothing of the file is in memory. Ways:

plain    the start alone
ahead    first what the sidecar lists as `hot` is read, 32 ranges at a time, then the start
beside   the same, but the start does not wait for it

Rounds alternate over files, readers, delays and ways; medians are shown. `share` is what storage
costs: seconds less those of the same file and reader, plain, without delay. `late` are requests
that come after the reading ahead: a start waits for these, mostly one after the other. On a machine
that others use, too, requests and CPU seconds say what the seconds do not.
Needs root, squashfuse, and a command that the image has.
"""

from __future__ import annotations

import argparse
import errno
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.sqsh import FuseConnection, NodeAttributes, read_sidecar

COMMAND = ["python", "-c", "import torch, deepspeed, torch.distributed.fsdp"]
READERS = ("kernel", "squashfuse")
WAYS = ("plain", "ahead", "beside")
THREADS = 32
ROOT, FILE = NodeAttributes(1, 0o040755, nlink=2), 2


class SlowFile:
    """A folder with one file, `f`; each read of it takes `delay` seconds. Reads are counted."""

    def __init__(self, path: Path, delay: float) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self._file = NodeAttributes(FILE, 0o100444, os.fstat(self._handle).st_size)
        self._delay = delay
        self._lock = threading.Lock()
        self.requests = self.bytes = 0

    def attributes(self, node: int) -> NodeAttributes:
        return self._file if node == FILE else ROOT

    def find(self, folder: int, name: bytes) -> NodeAttributes:
        if (folder, name) != (ROOT.node, b"f"):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._file

    def names(self, folder: int) -> Iterable[tuple[bytes, NodeAttributes]]:
        return [(b"f", self._file)] if folder == ROOT.node else []

    def target(self, node: int) -> bytes:
        raise OSError(errno.EINVAL, f"{node} is no symbolic link")

    def read(self, node: int, start: int, size: int) -> bytes:
        assert node == FILE
        if self._delay:
            time.sleep(self._delay)
        data = os.pread(self._handle, size, start)
        with self._lock:
            self.requests += 1
            self.bytes += len(data)
        return data

    def close(self) -> None:
        os.close(self._handle)


@dataclass(frozen=True)
class Start:
    """One start, in seconds, requests and bytes; `cpu` is the command's and squashfuse's."""

    seconds: float
    requests: int
    late: int
    bytes: int
    cpu: float


def read_ahead(path: Path, ranges: Iterable[tuple[int, int]]) -> None:
    """As the jobs of `inv slurm.script` do."""

    def read(span: tuple[int, int]) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            at, end = span
            while at < end and (data := os.pread(handle, min(1 << 20, end - at), at)):
                at += len(data)
        finally:
            os.close(handle)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, ranges))


@contextmanager
def mounted(reader: str, file: Path, root: Path) -> Iterator[int | None]:
    """The image at `root`; the pid of the process that serves it, if one does."""
    if reader == "kernel":
        command = ["mount", "-t", "squashfs", "-o", "loop,ro", str(file), str(root)]
        subprocess.run(command, check=True)
        server = None
    else:
        server = subprocess.Popen(["squashfuse", "-f", "-o", "allow_other", str(file), str(root)])
        while not root.is_mount():
            time.sleep(0.005)
    try:
        for name in ("proc", "dev"):
            subprocess.run(["mount", "--rbind", f"/{name}", str(root / name)], check=True)
            subprocess.run(["mount", "--make-rslave", str(root / name)], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(root / "tmp")], check=True)
        yield server.pid if server else None
    finally:
        for name in ("tmp", "dev", "proc"):
            subprocess.run(["umount", "-l", str(root / name)], check=True)
        subprocess.run(["umount", str(root)], check=True)
        if server is not None:
            server.wait()


def cpu_of(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(path: Path, reader: str, delay: float, way: str, command: list[str]) -> Start:
    sidecar = read_sidecar(path)
    hot = sidecar.hot if sidecar is not None else ()
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    slow = SlowFile(path, delay)
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as image:
        root, file = Path(image), Path(place, "f")
        with FuseConnection(slow, Path(place), threads=64):
            begun, early = time.perf_counter(), 0
            beside = threading.Thread(target=read_ahead, args=(file, hot))
            if way != "plain":
                beside.start()
            if way == "ahead":
                beside.join()
                early = slow.requests
            with mounted(reader, file, root) as server:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                home = {"PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin"}
                subprocess.run(
                    ["chroot", image, *command],
                    env={**home, "HOME": "/tmp"},
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                seconds = time.perf_counter() - begun
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                cpu += cpu_of(server)
                if way == "beside":
                    beside.join()
    slow.close()
    return Start(seconds, slow.requests, slow.requests - early, slow.bytes, cpu)


def main() -> None:
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delays", default="0,1,5,20")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args(words[:at])
    command = words[at + 1 :] or COMMAND
    cases = [
        (path, reader, float(delay), way)
        for delay in given.delays.split(",")
        for reader in given.readers.split(",")
        for way in given.ways.split(",")
        for path in given.files
    ]
    found: dict[tuple[Path, str, float, str], list[Start]] = {case: [] for case in cases}
    for number in range(given.rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            path, reader, delay, way = case
            made = start(path, reader, delay / 1000, way, command)
            found[case].append(made)
            print(f"{path.name} {reader} {delay:g} ms {way}: {made}", file=sys.stderr, flush=True)

    def middle(case: tuple[Path, str, float, str], name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in found[case]))

    head = ["file", "MB", "reader", "ms", "way", "seconds", "share"]
    head += ["requests", "late", "MB-read", "CPU-s"]
    print("|".join(["", *head, ""]), "|".join(["", *["---"] * len(head), ""]), sep="\n")
    for case in cases:
        path, reader, delay, way = case
        seconds, still = middle(case, "seconds"), (path, reader, 0.0, "plain")
        share = f"{seconds - middle(still, 'seconds'):.1f}" if found.get(still) else ""
        size = path.stat().st_size / 1e6
        print(
            f"| {path.name} | {size:.0f} | {reader} | {delay:g} | {way} | {seconds:.1f} | {share} |"
            f" {middle(case, 'requests'):.0f} | {middle(case, 'late'):.0f} |"
            f" {middle(case, 'bytes') / 1e6:.0f} | {middle(case, 'cpu'):.1f} |"
        )


if __name__ == "__main__":
    main()
