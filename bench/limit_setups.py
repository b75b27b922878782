"""How bench/limits.py sets each limit, and reads it back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from slipway.core import Project
from slipway.engine import stop_daemon
from slipway.registry import stop_local_registry

CGROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20
FAR = 1 << 40
_HOLD = """
import fcntl, os, signal, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
signal.pause()
"""
_CLOCK = "import time; a = time.time(); time.sleep(0.4); print(round(time.time() - a))"


def few_files(hard: bool) -> None:
    """64 open files: the soft limit, or both."""
    most = 64 if hard else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, most)


def small_files() -> None:
    """No file of more than 1 kB, without the signal: a write that fails in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == (1024, 1024)


def hangs_up() -> None:
    """SIGHUP and SIGPIPE as a shell with job control leaves them."""
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def cgroup(controller: str, limits: Mapping[str, int]) -> Iterator[Path]:
    """A group of cgroup v1 with these limits, each read back; what joins it writes to its procs."""
    group = CGROUPS / controller / f"slipway-limits-{os.getpid()}"
    group.mkdir()
    try:
        for name, value in limits.items():
            (group / name).write_text(str(value))
            assert int((group / name).read_text()) == value, name
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        while True:  # a group of processes that are ending cannot be removed yet
            with contextlib.suppress(OSError):
                group.rmdir()
                break


def join(group: Path) -> None:
    """Have this process, and its children to come, be in a group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    assert group.name in Path("/proc/self/cgroup").read_text()


@contextlib.contextmanager
def small_disk(state: Path, registry: Path, option: str) -> Iterator[None]:
    """A small tmpfs over `state` (`size=16k`, `nr_inodes=20`), read back from the kernel.

    The registry that runs keeps its own disk, by way of `registry`.
    """
    name, _, value = option.partition("=")
    number = int(value.removesuffix("k")) * (1024 if value.endswith("k") else 1)
    registry.mkdir()
    with contextlib.ExitStack() as stack:
        _mount(stack, registry, "--bind", str(state / "registry"))
        _mount(stack, state, "-t", "tmpfs", "-o", option, "limits")
        stats = os.statvfs(state)
        got = stats.f_files if name == "nr_inodes" else stats.f_blocks * stats.f_frsize
        assert got == number, (option, got)
        (state / "registry").mkdir()
        _mount(stack, state / "registry", "--bind", str(registry))
        yield
    registry.rmdir()


def _mount(stack: contextlib.ExitStack, place: Path, *words: str) -> None:
    subprocess.run(["mount", *words, str(place)], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)


def grow(place: Path) -> None:
    """Make room on a tmpfs."""
    subprocess.run(["mount", "-o", "remount,size=2g,nr_inodes=0", str(place)], check=True)


@contextlib.contextmanager
def held_by_stopped(lock: Path) -> Iterator[None]:
    """A lock file held by a process that is stopped; read back."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
            with lock.open("rb") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield
                else:
                    raise AssertionError(f"{lock} is free")
        finally:
            holder.kill()


def end_daemons(project: Project) -> None:
    """End what tasks have started for a project."""
    stop_local_registry(project)
    stop_daemon(project)


class Shim:
    """bench/limit_shim.c, compiled: a full disk, no inodes, a clock that jumps, in a child."""

    def __init__(self, folder: Path) -> None:
        self.library = folder / "limit_shim.so"
        self.counter = folder / "counter"
        source = Path(__file__).with_name("limit_shim.c")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(self.library), str(source), "-ldl"]
        subprocess.run(command, check=True)

    def environment(self, settings: Mapping[str, int | str]) -> dict[str, str]:
        """For one run: events are counted from nothing."""
        self.counter.write_bytes(bytes(16))
        return {
            "LD_PRELOAD": str(self.library),
            "LIMIT_COUNTER": str(self.counter),
            **{f"LIMIT_{name}": str(value) for name, value in settings.items()},
        }

    @property
    def events(self) -> int:
        """How many there were since `environment`."""
        return int(struct.unpack("ll", self.counter.read_bytes())[0])

    def check_disk(self, kind: str) -> None:
        """The second event fails, and with the right error."""
        make = "os.mkdir(f'{n}')" if kind == "inodes" else "h = open('x', 'ab', 0); h.write(b'x')"
        code = f"import os\nfor n in range(2):\n try: {make}; print('made')\n except OSError as e:"
        with tempfile.TemporaryDirectory() as folder:
            told = self._run(f"{code} print(e.errno)", {"KIND": kind, "FROM": 2}, folder)
        assert told == "made\n28\n", told

    def check_clock(self, seconds: int) -> None:
        """It jumps while a process runs."""
        told = self._run(_CLOCK, {"CLOCK_S": seconds, "CLOCK_AFTER_MS": 200}, "/")
        assert int(told) == seconds, told

    def _run(self, code: str, settings: Mapping[str, int | str], folder: str) -> str:
        environment = {**os.environ, **self.environment(settings), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-I", "-c", code]
        return subprocess.run(
            command, env=environment, cwd=folder, check=True, capture_output=True, text=True
        ).stdout
