"""Tasks under the limits of a small or broken machine: what each ends with.

    python -m bench.limits

Each row is a limit, each column a task; a cell is the exit code, and what was not right:
"traceback", "hangs" or "left". A limit is set in the child alone, and numbers are read back there
before they count. The tasks are those that need no engine, or end because there is none.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
TASKS = ("plan", "lock --check", "sqsh --from {image}", "push --unlocked", "storage.move {disk}")
MANY = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}


@dataclass(frozen=True)
class Limit:
    """What is short in the child. `setup` runs in it before the task; `shell` is put around it."""

    name: str
    setup: Callable[[], None] = lambda: None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    shell: str = ""
    state: str = "state"


def few_files() -> None:
    """64 open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)


def few_processes() -> None:
    """256 processes; root is not held to it."""
    resource.setrlimit(resource.RLIMIT_NPROC, (256, 256))
    assert resource.getrlimit(resource.RLIMIT_NPROC) == (256, 256)


def small_files() -> None:
    """No file of more than 1 kB, without the signal: a write that fails in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == (1024, 1024)


def hangs_up() -> None:
    """SIGHUP and SIGPIPE as a shell with job control leaves them."""
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


LIMITS = (
    Limit("none"),
    Limit("64 open files", few_files),
    Limit("256 processes", few_processes),
    Limit("writes fail after 1 kB", small_files),
    Limit("HOME unset", environment={"HOME": None}),
    Limit("LANG=C", environment=MANY),
    Limit("a path with blanks and unicode", state="stäte of mine ☃"),
    Limit("stdout closed early", shell="{command} | head -1; exit ${{PIPESTATUS[0]}}"),
    Limit("stdout full", shell="{command} > /dev/full"),
    Limit("stderr full", shell="{command} 2> /dev/full"),
    Limit("stdout closed", shell="{command} >&-"),
    Limit("stdin closed", shell="{command} <&-"),
    Limit("SIGPIPE kills", hangs_up, shell="{command} | head -1; exit ${{PIPESTATUS[0]}}"),
    Limit("SIGHUP", hangs_up, shell="{command} & sleep 0.7; kill -HUP $!; wait $!"),
)


@dataclass(frozen=True)
class Ending:
    """How a task ended under a limit."""

    code: int | None
    text: str
    left: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """What was not right about it."""
        wrong = []
        if self.code is None:
            wrong.append("hangs")
        if "Traceback" in self.text or "Exception ignored" in self.text:
            wrong.append("traceback")
        if self.left:
            wrong.append("left " + ", ".join(self.left))
        return wrong


def run_limited(limit: Limit, task: str) -> Ending:
    """Run a task of this checkout under a limit, with state of its own."""
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        home = Path(folder)
        state = home / limit.state
        state.mkdir()
        words = task.format(image=f"oci:{home}/none", disk=home / "disk").split()
        command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *words]
        if limit.shell:
            quoted = " ".join(f"'{word}'" for word in command)
            command = ["bash", "-c", limit.shell.format(command=quoted)]
        environment: dict[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PYTHONPATH": str(ROOT),
            "SLIPWAY_STATE": str(state),
            "INVOKE_SLIPWAY_ENGINE": "tcp://127.0.0.1:9",
        }
        for name, value in limit.environment.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=limit.setup,
        )
        try:
            told, _ = process.communicate(timeout=PATIENCE_S)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, code = process.communicate()[0], None
        return Ending(code, told.decode("utf-8", "replace"), tuple(sorted(half_made(state))))


def half_made(state: Path) -> Iterator[str]:
    """Files that look like work in progress."""
    for path in state.rglob("*"):
        if ".partial" in path.name or path.name.startswith(".tmp"):
            yield path.relative_to(state).as_posix()


def main() -> None:
    """Print the matrix."""
    print("| limit | " + " | ".join(task.partition(" ")[0] for task in TASKS) + " |")
    print("|---|" + "---|" * len(TASKS))
    for limit in LIMITS:
        cells = []
        for task in TASKS:
            ending = run_limited(limit, task)
            cells.append("; ".join([str(ending.code), *ending.faults]))
        print(f"| {limit.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
