"""One rank watched from outside: what its stack and its use of CPU and I/O say together.

`RankTracker` keeps what the samples have in common: since when a rank stands in one place, and
since when it shows no progress at all. Progress is another place, I/O, or a child that computes (a
compiler); CPU time alone is none, because a wait may spin: NCCL's do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.ranks import rank_processes
from launcher.ranks.watch import call_stack
from launcher.ranks.watch.call_stack import DEBUGGER, OWN, Stack, StackPlace
from launcher.ranks.watch.rank_resources import ProcessUse, read_use, system_call, tracer
from launcher.ranks.watch.stack_files import STACK_SIGNAL, StackFile

#: Less I/O between two samples is a heartbeat, not work.
WORK_BYTES = 16384
#: A child that uses less of a core is idle.
CHILD_SHARE = 0.1


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
