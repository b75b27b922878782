"""One rank watched from outside: its stack by signal, its state, CPU time and I/O from /proc.

`RankTracker` keeps what the samples have in common: since when a rank stands in one place, and
since when it shows no progress at all. Progress is another place, I/O, or a child that computes (a
compiler); CPU time alone is none, because a wait may spin: NCCL's do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.ranks import rank_processes
from launcher.ranks.watch import call_stack
from launcher.ranks.watch.call_stack import DEBUGGER, OWN, Stack, StackPlace

#: As in user_python/site/: what may be asked, and the files of the answers.
MAIN, THREADS, GROUPS = "m", "t", "c"
SUFFIXES = {MAIN: "", THREADS: ".threads", GROUPS: ".groups"}
#: On this one, too, all threads' stacks are written.
STACK_SIGNAL = signal.SIGWINCH
SIGNAL_SECONDS = 5.0
#: Where in the kernel a thread waits for a signal (wchan): pause, sigsuspend, sigwait.
SIGNAL_WAIT = re.compile(r"pause|sigsuspend|sigtimedwait")
TICKS = os.sysconf("SC_CLK_TCK")
#: Less I/O between two samples is a heartbeat, not work.
WORK_BYTES = 16384
#: A child that uses less of a core is idle.
CHILD_SHARE = 0.1
#: 100 frames a thread at most; a longer text is no answer.
ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class ProcessUse:
    """What a process has used so far: CPU seconds, seconds ready without a CPU, bytes, faults."""

    state: str = "?"
    cpu: float = 0.0
    main_cpu: float = 0.0
    ready: float = 0.0
    io: int = 0
    faults: int = 0


def read_use(pid: int) -> ProcessUse | None:
    """From /proc; None when the process has ended. What may not be read counts as 0."""
    stat = _stat(pid, "stat")
    if stat is None or stat[0] in "ZX":
        return None
    main = _stat(pid, f"task/{pid}/stat")
    return ProcessUse(
        state=stat[0],
        cpu=(int(stat[11]) + int(stat[12])) / TICKS,
        main_cpu=(int(main[11]) + int(main[12])) / TICKS if main else 0.0,
        ready=_ready(pid),
        io=_io(pid),
        faults=int(stat[9]),
    )


def _stat(pid: int, name: str) -> list[str] | None:
    """The fields of a stat file from the state on (proc(5): the name before may hold anything)."""
    text = rank_processes.read_proc_text(pid, name)
    return text[text.rindex(")") + 2 :].split() if text else None


def _ready(pid: int) -> float:
    """Seconds for which the main thread could have run but had no CPU."""
    try:
        return int(rank_processes.read_proc_text(pid, "schedstat").split()[1]) / 1e9
    except (IndexError, ValueError):
        return 0.0


def _io(pid: int) -> int:
    text = rank_processes.read_proc_text(pid, "io")
    values = dict(line.split(": ") for line in text.splitlines() if ": " in line)
    return int(values.get("rchar", 0)) + int(values.get("wchar", 0))


def system_call(pid: int) -> str:
    """Where in the kernel the main thread waits, as far as it may be read: ``futex_wait_queue``."""
    name = rank_processes.read_proc_text(pid, "wchan").strip()
    return "" if name in ("0", "") else name


def tracer(pid: int) -> int:
    """The debugger that holds a process; 0 for none."""
    text = rank_processes.read_proc_text(pid, "status")
    row = next((line for line in text.splitlines() if line.startswith("TracerPid:")), "")
    return int(row.split()[1]) if row else 0


class StackFile:
    """Where one process answers questions of where it stands.

    Its own thread is asked first, through a pipe (user_python/site/rank_answers.py). A process that
    has none, or whose thread has not answered for `patience` seconds, is sent a signal, at most
    once in that time. `name` is its number in its own PID namespace, where that is another.
    """

    def __init__(
        self, directory: Path, pid: int, name: int = 0, *, patience: float = SIGNAL_SECONDS
    ) -> None:
        self.pid = pid
        self._base = f"{directory}/{name or pid}"
        self._patience = patience
        self._asked: dict[str, float] = {}
        self._signalled = time.monotonic()
        self._unread = False
        self._dump = ""
        self._cut = 0
        self._owner: int | None = None

    def ask(self, question: str = MAIN) -> bool:
        """Put one question; False where it can not be put, or is being waited for."""
        now = time.monotonic()
        asked = self._asked.get(question)
        if asked is not None and not self.read(question):
            if now - max(asked, self._signalled) >= self._patience:
                self._signal(now)
            return False
        if not self._write(question):
            if now - self._signalled >= self._patience:
                self._signal(now)
            return False
        self._asked[question] = now
        return True

    def _write(self, question: str) -> bool:
        """Into the pipe; False where nobody reads it: no such thread, or another program now."""
        try:
            pipe = self._open(".ask", os.O_WRONLY)
        except OSError:
            return False
        try:
            self._cut_back(question)
            os.write(pipe, question.encode())
        except OSError:
            return False
        finally:
            os.close(pipe)
        return True

    def _signal(self, now: float) -> None:
        """Have faulthandler write all threads' stacks, where that harms nothing.

        Where there is no handler the signal is lost. A script that waits for signals itself would
        take this one for what it waits for; a stopped one would be given it when it goes on.
        """
        self._signalled = now
        use = read_use(self.pid)
        if use is None or use.state in "Tt" or SIGNAL_WAIT.search(system_call(self.pid)):
            return
        if rank_processes.catches_signal(self.pid, STACK_SIGNAL):
            with contextlib.suppress(OSError):
                self._cut_back(THREADS)
                self._dump = ""
                self._unread = bool(rank_processes.send_signal([self.pid], STACK_SIGNAL))

    def _open(self, suffix: str, flags: int) -> int:
        """One of its files, if the process owns it: `launch stacks` by root looks at anybody's.

        A process says itself where its files are, and could name a link, or what is another's.
        """
        handle = os.open(self._base + suffix, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self._owner is None:
                self._owner = os.stat(f"/proc/{self.pid}").st_uid  # noqa: PTH116 - often
            if os.fstat(handle).st_uid != self._owner:
                raise PermissionError(errno.EPERM, "it is another user's", self._base + suffix)
        except OSError:
            os.close(handle)
            raise
        return handle

    def _cut_back(self, question: str) -> None:
        handle = self._open(SUFFIXES[question], os.O_WRONLY)
        try:
            self._cut += os.fstat(handle).st_size
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def written(self) -> int:
        """Bytes of all answers so far: what a process has written for us, not for itself."""
        total = self._cut
        for suffix in SUFFIXES.values():
            with contextlib.suppress(OSError):
                total += os.stat(self._base + suffix).st_size  # noqa: PTH116 - often
        return total

    def signal(self) -> None:
        """Without the thread, now: for those who can have none (a data loader's workers)."""
        self._signal(time.monotonic())

    def read(self, question: str = MAIN) -> str:
        """What has been written since it was asked for."""
        try:
            with os.fdopen(self._open(SUFFIXES[question], os.O_RDONLY), "rb") as file:
                return file.read(ANSWER_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return ""

    def main_stack(self) -> Stack:
        """The main thread's stack, however it has come since it was last asked for."""
        text = self.read()
        if text:
            return call_stack.parse_stack(text)
        if not self._unread:
            return ()
        # A dump grows line by line, its last thread is the main one: it is whole when it has not
        # grown since the last look.
        text, before = self.read(THREADS), self._dump
        self._dump = text
        if not text or text != before:
            return ()
        self._unread = False
        return call_stack.main_stack(text)


@dataclass
class RankTracker:
    """What is known of one rank by its samples."""

    rank: int
    pid: int
    file: StackFile
    stack: Stack = ()
    place: StackPlace = field(default_factory=lambda: StackPlace(call_stack.UNKNOWN, "", ""))
    use: ProcessUse = field(default_factory=ProcessUse)
    written: int = 0
    gone: bool = False
    #: Monotonic times: since when it has been in this place; since when without progress.
    since: float = 0.0
    idle_since: float = 0.0
    answered: float = 0.0
    seen: float = 0.0
    #: Over the last seconds: share of a core used, share of the time ready without a core.
    cpu_share: float = 0.0
    ready_share: float = 0.0
    child: str = ""
    #: Of the current window of the straggler watch: how many samples, the lengths of the waits that
    #: ended in it, and where the rank was in the other samples. `wait` is the one that goes on.
    samples: int = 0
    waits: list[int] = field(default_factory=list)
    wait: int = 0
    work: Counter[str] = field(default_factory=Counter)
    starved: int = 0
    _mark: tuple[float, ProcessUse] | None = None
    _children: dict[int, tuple[float, int]] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """Nothing is known yet."""
        self.since = self.idle_since = self.answered = self.seen = now
        use = read_use(self.pid)
        if use is not None:
            self.use = use
            self._mark = (now, use)

    def take(self, now: float, stack: Stack) -> None:
        """One sample: the stack (empty where none came) beside what /proc says."""
        use = read_use(self.pid)
        if use is None:
            # It ended after it was last seen, and before whatever its end has caused.
            self.gone = True
            self.since = self.seen
            return
        self.seen = now
        moved = False
        if stack:
            self.answered = now
            moved = not call_stack.same_place(stack, self.stack)
            if stack != self.stack:
                self.place = call_stack.find_place(stack)
            self.stack = stack
        if moved:
            self.since = now
        written = self.file.written()
        if moved or self._worked(use, written - self.written):
            self.idle_since = now
        self.use, self.written = use, written
        self._measure(now, use)
        self._count()

    def _worked(self, use: ProcessUse, answers: int) -> bool:
        """Whether there was I/O or paging; bytes of answers are ours, not the rank's."""
        return use.faults > self.use.faults or use.io - self.use.io - answers > WORK_BYTES

    def _measure(self, now: float, use: ProcessUse) -> None:
        """Shares over at least two seconds: CPU time is counted in steps of 10 ms."""
        if self._mark is None:
            self._mark = (now, use)
        began, first = self._mark
        if now - began >= 2.0:
            self.cpu_share = (use.cpu - first.cpu) / (now - began)
            self.ready_share = (use.ready - first.ready) / (now - began)
            self._mark = (now, use)

    def _count(self) -> None:
        self.samples += 1
        if self.place.waits:
            self.wait += 1
        else:
            self.waits += [self.wait] if self.wait else []
            self.wait = 0
            self.work[self.place.where] += 1
        if self.ready_share > 0.5:
            self.starved += 1

    def new_window(self) -> None:
        """Begin to count anew."""
        self.samples = self.starved = 0
        self.waits = []
        self.work.clear()

    def look_at_children(
        self, now: float, seconds: float, table: Mapping[int, rank_processes.RankProcess]
    ) -> None:
        """Whether a program that the rank has started is at work: a compiler, a download.

        A data loader's worker that has the rank's own handlers is part of the rank.
        """
        family = rank_processes.descendants(self.pid, table)
        seen: dict[int, tuple[float, int]] = {}
        self.child = ""
        for process in family:
            use = read_use(process.pid)
            if use is None:
                continue
            seen[process.pid] = (use.cpu, use.io)
            cpu, io = self._children.get(process.pid, (use.cpu, use.io))
            own = rank_processes.catches_signal(process.pid, STACK_SIGNAL)
            busy = use.cpu - cpu > CHILD_SHARE * seconds or use.io - io > WORK_BYTES
            if busy and not own:
                self.child = process.name
                self.idle_since = now
        self._children = seen

    def row(self, now: float) -> dict[str, object]:
        """What the other nodes are told; a few hundred bytes."""
        return {
            "rank": self.rank,
            "kind": "gone" if self.gone else self._kind(now),
            "call": self.place.call[:60],
            "where": self.place.where[:160],
            "code": self.place.code[:120],
            "after": self.place.after[:120],
            "seconds": round(now - self.since, 1),
            "idle": round(now - self.idle_since, 1),
            "doing": self.doing(now),
        }

    def _kind(self, now: float) -> str:
        if self.use.state == "T":
            return "stopped"
        if self.use.state == "t" or tracer(self.pid):
            return DEBUGGER
        if not self.stack or now - self.answered > 10.0:
            return "silent" if self.stack else call_stack.UNKNOWN
        return self.place.kind

    def doing(self, now: float) -> str:
        """In words: what the process does by /proc."""
        if self.gone:
            return "its process has ended"
        state = self.use.state
        if state == "T":
            return "stopped by a signal (SIGSTOP)"
        if state == "t" or tracer(self.pid):
            return "held by a debugger"
        if self.place.kind == DEBUGGER:
            return "in an interactive debugger"
        if self.child:
            return f"its child {self.child} is at work"
        if self.ready_share > 0.5 and self.cpu_share < 0.5:
            return f"starved of CPU: it had {self.cpu_share:.0%} of a core and was ready to run"
        call = system_call(self.pid)
        inside = f" in {call}" if call else ""
        if state == "D":
            return f"in an uninterruptible system call{inside}"
        if self.cpu_share > 0.7:
            words = "spinning" if now - self.idle_since > 5.0 else "computing"
            return f"{words}, {self.cpu_share:.0%} of a core"
        if self.place.kind == OWN and self.place.call == "data loader":
            return "waits for its data loader's workers"
        return f"asleep, {self.cpu_share:.0%} of a core{inside}"


def rank_number(pid: int) -> int:
    """The global rank of a process, by its environment; -1 where it does not say."""
    env = rank_processes.read_environment(pid)
    text = env.get("RANK") or env.get("OMPI_COMM_WORLD_RANK") or ""
    return int(text) if text.isdecimal() else -1


def answering_process(pid: int, directory: Path) -> int:
    """The process of a rank that has a stack file: itself, or what a shell wrapper has started."""
    if (directory / f"{pid}.threads").exists():
        return pid
    for process in rank_processes.descendants(pid, rank_processes.process_table()):
        if (directory / f"{process.pid}.threads").exists():
            return process.pid
    return pid


def gather(files: Mapping[str, StackFile], question: str, patience: float = 1.0) -> dict[str, str]:
    """Each process's answer to one question, as far as they come within `patience` seconds.

    Of those who do not answer by themselves, stacks are had by the signal, at half time.
    """
    unasked = {name for name, file in files.items() if not file.ask(question)}
    began = time.monotonic()
    half = began + (patience / 2 if len(unasked) < len(files) else 0.0)
    signalled = question != THREADS
    texts: dict[str, str] = {}
    while len(unasked) < len(files) or not signalled:
        now = time.monotonic()
        if not signalled and now >= half:
            signalled = True
            for file in (file for name, file in files.items() if not texts.get(name)):
                file.signal()
            unasked = set()
        time.sleep(0.02)
        # A dump grows line by line: it is whole when it has not grown since the last look.
        again = {name: file.read(question) for name, file in files.items() if name not in unasked}
        whole = all(text and text == texts.get(name) for name, text in again.items())
        texts = again
        if (whole and not (unasked and not signalled)) or now - began > patience:
            break
    return texts
