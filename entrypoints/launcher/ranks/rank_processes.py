"""The process tree below the launcher, read from /proc: who the ranks are, and ending them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

PROC = Path("/proc")
PROC_BYTES = 65536
"""Read at once: more than any file of /proc that is read here has, an environment now and then."""

#: A rank is a process with one of these pairs in its environment: torchrun, DeepSpeed and our own
#: python runner set the first, Open MPI (the toolkit's mpi distribution) the second.
RANK_MARKS = (("RANK", "LOCAL_RANK"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"))

_ENDED = ("Z", "X")

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "busybox"})


@dataclass(frozen=True)
class RankProcess:
    """One living process (zombies are not listed)."""

    pid: int
    parent: int
    name: str
    state: str = ""


def read_proc(pid: int | str, name: str) -> bytes:
    """A file of /proc/PID as it is. Raises OSError.

    By system calls alone: the watch reads thousands a minute, and a file object's own questions
    (is it a terminal, how long is it) cost it twice the CPU.
    """
    handle = os.open(f"{PROC}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = part = os.read(handle, PROC_BYTES)
        while len(part) == PROC_BYTES:
            part = os.read(handle, PROC_BYTES)
            text += part
        return text
    finally:
        os.close(handle)


def read_proc_text(pid: int | str, name: str) -> str:
    """The same as text; empty where the process has ended or may not be read."""
    try:
        return read_proc(pid, name).decode("utf-8", errors="replace")
    except OSError:
        return ""


def process_table() -> dict[int, RankProcess]:
    """All living processes that /proc shows, each below the nearest one above it that lives.

    They are read one after the other, while others end. One that ends may be a zombie and have
    children still, for as long as its threads end (exit(2) of a group). And a process that is read
    before its parent, since its number is smaller (they begin again after the largest), names one
    that may be gone when its turn comes. Either would be below nobody in the table, and be left
    alive by who ends a tree.
    """
    table: dict[int, RankProcess] = {}
    for entry in os.listdir(PROC):  # noqa: PTH208 - often
        if entry.isdecimal() and (process := _read_process(int(entry))):
            table[process.pid] = process
    lost = [process for process in table.values() if process.parent not in table]
    while lost:
        process = lost.pop()
        del table[process.pid]
        if again := _read_process(process.pid):
            table[again.pid] = again
            if again.parent != process.parent and again.parent not in table:
                lost.append(again)
    living: dict[int, RankProcess] = {}
    for process in table.values():
        if process.state not in _ENDED:
            above = _living_above(process, table)
            kept = process if above == process.parent else replace(process, parent=above)
            living[process.pid] = kept
    return living


def _living_above(process: RankProcess, table: Mapping[int, RankProcess]) -> int:
    parent = process.parent
    for _ in table:  # no further, whatever the numbers say that were read at several times
        if parent not in table or table[parent].state not in _ENDED:
            break
        parent = table[parent].parent
    return parent


def _read_process(pid: int) -> RankProcess | None:
    """A process, or a zombie; None where it has ended."""
    text = read_proc_text(pid, "stat")
    if not text:
        return None
    # The name is in parentheses and may hold spaces and parentheses itself (proc(5)).
    name = text[text.index("(") + 1 : text.rindex(")")]
    state, parent = text[text.rindex(")") + 2 :].split()[:2]
    return RankProcess(pid, int(parent), name, state)


def descendants(root: int, table: Mapping[int, RankProcess]) -> list[RankProcess]:
    """Everything below `root`, parents before children."""
    children: dict[int, list[RankProcess]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: list[RankProcess] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found.extend(below)
        queue.extend(process.pid for process in below)
    return found


def read_environment(pid: int) -> dict[str, str]:
    """A process's initial environment; empty when it has ended or is not ours to read."""
    try:
        raw = read_proc(pid, "environ")
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if b"=" in item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}


def program_name(pid: int) -> str:
    """The file name of what a process executes: bash for a shell script, whatever its name."""
    try:
        return Path(os.readlink(PROC / str(pid) / "exe")).name  # noqa: PTH115 - may end meanwhile
    except OSError:
        return ""


def catches_signal(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt in /proc/PID/status)."""
    for line in read_proc_text(pid, "status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def let_go_on(pid: int) -> None:
    """SIGCONT to a process that is stopped (SIGSTOP), unless a terminal's shell has it (Ctrl-Z)."""
    if _state_and_terminal(pid) == ("T", "0"):
        send_signal([pid], signal.SIGCONT)


def let_end(pid: int) -> None:
    """SIGCONT to a process that is to end now, stopped or not, unless a terminal's shell has it.

    A SIGSTOP takes effect when its target next runs: on a busy machine after whoever could wake it
    has looked for the last time. A SIGCONT takes back a stop that is still pending (signal(7)).
    """
    if _state_and_terminal(pid)[1] == "0":
        send_signal([pid], signal.SIGCONT)


def _state_and_terminal(pid: int) -> tuple[str, str]:
    """The state and the controlling terminal (0: none) of a process; nothing where it has ended."""
    text = read_proc_text(pid, "stat")
    if not text:
        return "", ""
    state, _, _, _, terminal = text[text.rindex(")") + 2 :].split()[:5]
    return state, terminal


def wake_stopped(root: int) -> list[int]:
    """SIGCONT to everything stopped below `root`; which ones. A stopped process hears no SIGTERM.

    One that a debugger holds (state t) is left to it.
    """
    stopped = [p.pid for p in descendants(root, process_table()) if p.state == "T"]
    return send_signal(stopped, signal.SIGCONT)


def find_ranks(root: int) -> list[int]:
    """The ranks below `root`: the top-most processes that carry a rank's variables.

    Top-most, because DataLoader workers inherit them. torchrun and the deepspeed launcher do not
    carry them, so a signal sent here goes around them: torchrun would kill its ranks after 30 s
    (pytorch/pytorch#119856) and deepspeed dies at once (deepspeedai/DeepSpeed#4098).
    """

    def is_rank(process: RankProcess) -> bool:
        # Slurm's enroot hook may have put rank variables into the launcher's own environment.
        env = {} if process.pid == os.getpid() else read_environment(process.pid)
        return any(all(name in env for name in pair) for pair in RANK_MARKS)

    return _topmost(descendants(root, process_table()), is_rank)


def find_workers(root: int) -> list[int]:
    """Where no rank has rank variables: the top-most processes that are not shells.

    sagemaker-training's plain mode runs `/bin/sh -c ./train.sh`; bash would hold a trap back until
    its child ends, so the child is the one to tell.
    """
    return _topmost(
        descendants(root, process_table()), lambda process: program_name(process.pid) not in SHELLS
    )


def _topmost(family: Iterable[RankProcess], wanted: Callable[[RankProcess], bool]) -> list[int]:
    found: list[int] = []
    covered: set[int] = set()
    for process in family:
        if process.parent in covered:
            covered.add(process.pid)
        elif wanted(process):
            covered.add(process.pid)
            found.append(process.pid)
    return found


def send_signal(pids: Iterable[int], number: int) -> list[int]:
    """Signal each process; the ones that were still there."""
    reached = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        reached.append(pid)
    return reached


def kill_tree(
    root: int, wanted: Callable[[RankProcess], bool] | None = None, patience: float = 10.0
) -> list[int]:
    """SIGKILL what is `wanted` (all) below `root` until nothing is left; what would not go.

    Repeats because a process may fork between the look and the kill. Sessions and process groups
    are no help: torchrun and deepspeed give each rank its own.
    """
    deadline = time.monotonic() + patience
    while True:
        alive = [p.pid for p in descendants(root, process_table()) if wanted is None or wanted(p)]
        if not alive or time.monotonic() > deadline:
            return alive
        send_signal(alive, signal.SIGKILL)
        time.sleep(0.02)
