"""Tasks under the limits of a small or broken machine: what each ends with, and what it leaves.

    python -m bench.limits                                  # root; every limit, every task
    python -m bench.limits --only memory,full --tasks ship,push --every

Each row is a limit, each column a task that has something to do (bench/limit_tasks.py); a cell is
the exit codes at the points where the limit was tried, and what was not right: a traceback, a hang,
an end without a word, something half-made, or a second run without the limit that did not heal it.
A limit is set in the child alone, and is read back before it counts; registries and engines run
outside of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import limit_setups as setups
from bench.limit_tasks import TASKS, Place, Task, half_made, tiny_place
from slipway.core import SlipwayError

PATIENCE_S = 180.0
YEAR_S = 365 * 86400
ODD = "stäte of mine ☃"
IN_C = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}


@dataclass
class Surroundings:
    """What is different for one run, in the child alone. `relieve` ends it for the second run."""

    environment: dict[str, str | None] = field(default_factory=dict)
    setup: Callable[[], None] = lambda: None
    shell: str = ""
    hang_up_after: float | None = None
    relieve: Callable[[], None] = lambda: None


Around = contextlib.AbstractContextManager[Surroundings]


@dataclass(frozen=True)
class Limit:
    """A limit and the points where it is tried; `codes` are the right ends."""

    name: str
    around: Callable[[Bench, Place, object], Around]
    points: Callable[[Bench, Place, Task], Sequence[object]] = lambda *_: ("",)
    codes: tuple[int, ...] = (0, 1)
    heard: bool = True  # what it prints can be read
    names: str = ""  # what it says where it fails
    where: Callable[[Place], contextlib.AbstractContextManager[Place]] = contextlib.nullcontext


@dataclass(frozen=True)
class Ending:
    """How a task ended under a limit: None for one that does not end."""

    code: int | None
    text: str
    seconds: float


class Bench:
    """Runs of tasks in a place, and what is known of them without a limit."""

    def __init__(self, scratch: Path, *, every: bool = False) -> None:
        self.shim = setups.Shim(scratch)
        self.every = every
        self._free: dict[tuple[str, str], tuple[int, float]] = {}

    def free_run(self, place: Place, task: Task, kind: str) -> tuple[int, float]:
        """Events of that kind in a run without a limit, and its seconds."""
        if (task.name, kind) not in self._free:
            with self.prepared(place, task):
                environment = self.shim.environment({"KIND": kind, "FROM": setups.FAR})
                ending = self.run(place, task, Surroundings(dict(environment)))
                assert ending.code == 0, ending.text
                self._free[task.name, kind] = self.shim.events, ending.seconds
        return self._free[task.name, kind]

    def faults(
        self, place: Place, task: Task, limit: Limit, point: object
    ) -> tuple[str, list[str]]:
        """The exit code under a limit, and what was not right."""
        with (
            limit.where(place) as where,
            self.prepared(where, task),
            limit.around(self, where, point) as surroundings,
        ):
            ending = self.run(where, task, surroundings)
            wrong = list(_wrong_end(ending, limit))
            left = sorted(half_made(where))
            if left:
                wrong.append(f"left {', '.join(left)[:200]}")
            surroundings.relieve()
            wrong += self._heal(where, task)
        return str(ending.code), [f"at {point}: {fault}" if point else fault for fault in wrong]

    def run(self, place: Place, task: Task, surroundings: Surroundings, words: str = "") -> Ending:
        """Run it to its end, or until patience ends."""
        arguments = [w.format(**place.words) for w in (words or task.words).split()]
        command = [sys.executable, "-m", "slipway.tasks.cli"]
        command += ["--search-root", str(place.clone.root), *arguments]
        if surroundings.shell:
            command = ["bash", "-c", surroundings.shell.format(command=shlex.join(command))]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=place.clone.root,
            env=_environment(place, task, surroundings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=surroundings.setup,
        )
        if surroundings.hang_up_after is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(surroundings.hang_up_after)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGHUP)
        try:
            told, _ = process.communicate(timeout=PATIENCE_S)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, code = process.communicate()[0], None
        return Ending(code, told.decode("utf-8", "replace"), time.monotonic() - began)

    @contextlib.contextmanager
    def prepared(self, place: Place, task: Task) -> Iterator[None]:
        place.make_state()
        try:
            task.before(place)
            with task.around(place) if task.around else contextlib.nullcontext():
                yield
        finally:
            place.drop_state()

    def _heal(self, place: Place, task: Task) -> Iterator[str]:
        """What is not right after a second run, without the limit."""
        again = self.run(place, task, Surroundings())
        if again.code != 0 and task.again and task.again.split()[-1] in again.text:
            again = self.run(place, task, Surroundings(), task.again)
        if again.code != 0:
            yield f"not healed: {again.code}: {again.text[-300:]}"
            return
        try:
            yield from task.done(place)
        except (SlipwayError, OSError, ValueError) as error:
            yield f"not healed: {error!r}"
        if left := sorted(half_made(place)):
            yield f"left for good: {', '.join(left)[:200]}"


def _environment(place: Place, task: Task, surroundings: Surroundings) -> dict[str, str]:
    kept = ("PATH", "HOME", "PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_pr")
    environment = {n: v for n, v in os.environ.items() if n.startswith(kept)}
    environment |= {"SLIPWAY_STATE": str(place.state), "INVOKE_SLIPWAY_ENGINE": task.engine}
    for name, value in surroundings.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment


def _wrong_end(ending: Ending, limit: Limit) -> Iterator[str]:
    if ending.code is None:
        yield f"hangs: {ending.text[-200:]}"
    elif ending.code not in limit.codes:
        yield f"exit code {ending.code}: {ending.text[-200:]}"
    if any(mark in ending.text for mark in ("Traceback", "Exception ignored", "Fatal Python")):
        yield f"traceback: {ending.text[-1500:]}"
    if ending.code == 1 and limit.heard and not re.search("^inv[a-z. ]*: ", ending.text, re.M):
        yield f"does not say why: {ending.text[-200:]}"
    if ending.code == 1 and limit.names not in ending.text:
        yield f"does not name what is in its way: {ending.text[-200:]}"


def _simply(**what: object) -> Callable[[Bench, Place, object], Around]:
    return lambda *_: contextlib.nullcontext(Surroundings(**what))  # type: ignore[arg-type]


def _in_cgroup(controller: str, name: str, value: int) -> Callable[[Bench, Place, object], Around]:
    @contextlib.contextmanager
    def around(_bench: Bench, _place: Place, _point: object) -> Iterator[Surroundings]:
        with setups.cgroup(controller, {name: value}) as group:
            yield Surroundings(setup=lambda: setups.join(group))

    return around


def _full(kind: str) -> Limit:
    """Every event of that kind (or with growing steps between them) is the first that fails."""

    def points(bench: Bench, place: Place, task: Task) -> list[int]:
        bench.shim.check_disk(kind)
        last, found = bench.free_run(place, task, kind)[0], [1]
        while found[-1] < last:
            found.append(found[-1] + 1 if bench.every else max(found[-1] + 1, found[-1] * 3 // 2))
        return [point for point in found if point <= last]

    def around(bench: Bench, _place: Place, point: object) -> Around:
        environment = bench.shim.environment({"KIND": kind, "FROM": str(point)})
        return contextlib.nullcontext(Surroundings(dict(environment)))

    what = "the disk is full" if kind == "writes" else "no inode is left"
    return Limit(f"{what} from the N-th on", around, points)


def _clock(seconds: int) -> Limit:
    def around(bench: Bench, _place: Place, _point: object) -> Around:
        bench.shim.check_clock(seconds)
        environment = bench.shim.environment({"CLOCK_S": seconds, "CLOCK_AFTER_MS": 800})
        return contextlib.nullcontext(Surroundings(dict(environment)))

    return Limit(f"the clock jumps by {seconds // YEAR_S:+d} year", around)


def _small_disk(option: str, values: Sequence[str]) -> Limit:
    @contextlib.contextmanager
    def around(_bench: Bench, place: Place, point: object) -> Iterator[Surroundings]:
        with setups.small_disk(place.state, place.scratch / "registry", f"{option}={point}"):
            yield Surroundings(relieve=lambda: setups.grow(place.state))

    def points(_bench: Bench, _place: Place, task: Task) -> Sequence[str]:
        return () if task.around else values

    return Limit(f"a disk with {option}", around, points)


def _hang_up() -> Limit:
    def points(bench: Bench, place: Place, task: Task) -> list[float]:
        seconds = bench.free_run(place, task, "writes")[1]
        return [round(seconds * part, 2) for part in (0.1, 0.3, 0.5, 0.7, 0.9)]

    def around(_bench: Bench, _place: Place, point: object) -> Around:
        after = float(str(point))
        return contextlib.nullcontext(Surroundings(setup=setups.hangs_up, hang_up_after=after))

    # By Python itself, and without a word, before the program has begun.
    return Limit("SIGHUP after N s", around, points, (0, 129, -signal.SIGHUP))


def _stopped_holder() -> Limit:
    def points(bench: Bench, place: Place, task: Task) -> list[str]:
        with bench.prepared(place, task):
            assert bench.run(place, task, Surroundings()).code == 0
            locks = [path for path in place.state.rglob("*") if _is_lock(path)]
            return sorted(str(path.relative_to(place.state)) for path in locks)

    @contextlib.contextmanager
    def around(_bench: Bench, place: Place, point: object) -> Iterator[Surroundings]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(setups.held_by_stopped(place.state / str(point)))
            yield Surroundings(relieve=stack.close)

    return Limit(
        "a stopped process holds the lock N",
        around,
        points,
        names="), which is stopped (`kill -CONT",
    )


def _is_lock(path: Path) -> bool:
    named = path.name == "lock" or path.suffix == ".lock" or path.parent.name == "locks"
    return named and path.is_file() and "/uv/" not in str(path)  # uv's own


@contextlib.contextmanager
def _odd_place(place: Place) -> Iterator[Place]:
    """The checkout, its state and what it is given, below a folder of blanks and unicode."""
    odd = place.scratch / ODD
    odd.mkdir()
    names = ("clone", "image")
    for name in names:
        (place.scratch / name).rename(odd / name)
    (odd / "state").mkdir()
    clone = replace(place.clone, root=odd / "clone")
    words = {**place.words, "scratch": str(odd)}
    try:
        yield replace(place, clone=clone, scratch=odd, state=odd / "state", words=words)
    finally:
        for name in names:
            (odd / name).rename(place.scratch / name)
        shutil.rmtree(odd)


def _with_daemons_of_its_own(**environment: str) -> Callable[[Bench, Place, object], Around]:
    @contextlib.contextmanager
    def around(_bench: Bench, place: Place, _point: object) -> Iterator[Surroundings]:
        setups.end_daemons(place.project)
        yield Surroundings(dict(environment))

    return around


LIMITS = (
    Limit("none", _simply(), codes=(0,)),
    Limit("64 open files (soft limit)", _simply(setup=lambda: setups.few_files(hard=False))),
    Limit("64 open files", _simply(setup=lambda: setups.few_files(hard=True))),
    Limit("256 processes and threads", _in_cgroup("pids", "pids.max", 256)),
    Limit("512 MB of memory", _in_cgroup("memory", "memory.limit_in_bytes", 512 * setups.MIB)),
    Limit("writes fail after 1 kB of a file", _simply(setup=setups.small_files)),
    _full("writes"),
    _full("inodes"),
    _small_disk("size", ("16k", "128k", "1024k", "2048k", "3072k", "4096k", "6144k")),
    _small_disk("nr_inodes", ("4", "8", "16", "24", "32", "48", "64")),
    _clock(YEAR_S),
    _clock(-YEAR_S),
    Limit("HOME unset", _simply(environment={"HOME": None}), codes=(0,)),
    Limit("LANG=C", _with_daemons_of_its_own(**IN_C), codes=(0,)),
    Limit(
        "paths with blanks and unicode", _with_daemons_of_its_own(), codes=(0,), where=_odd_place
    ),
    Limit("the same, and LANG=C", _with_daemons_of_its_own(**IN_C), codes=(0,), where=_odd_place),
    Limit("stdin closed", _simply(shell="{command} <&-"), codes=(0,)),
    Limit("stdout closed", _simply(shell="{command} >&-"), codes=(0,)),
    Limit(
        "stdout closed early (head -1)",
        _simply(shell="{command} | head -1; exit ${{PIPESTATUS[0]}}"),
        heard=False,
    ),
    Limit(
        "the same, and SIGPIPE kills",
        _simply(setup=setups.hangs_up, shell="{command} | head -1; exit ${{PIPESTATUS[0]}}"),
        heard=False,
    ),
    Limit("stdout full", _simply(shell="{command} > /dev/full"), heard=False),
    Limit("stderr full", _simply(shell="{command} 2> /dev/full"), heard=False),
    _hang_up(),
    _stopped_holder(),
)


def cell(bench: Bench, place: Place, task: Task, limit: Limit) -> tuple[str, list[str]]:
    """What stands in the table, and what was not right."""
    codes: Counter[str] = Counter()
    faults: list[str] = []
    for point in limit.points(bench, place, task):
        code, wrong = bench.faults(place, task, limit, point)
        codes[code] += 1
        faults += wrong
    if sum(codes.values()) == 1:
        return next(iter(codes)), faults
    return ", ".join(f"{code} ({number})" for code, number in sorted(codes.items())) or "-", faults


def main() -> int:
    """Print the matrix; 1 where something was not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="parts of limits' names, as `memory,clock`")
    parser.add_argument("--tasks", default=",".join(task.name for task in TASKS))
    parser.add_argument("--every", action="store_true", help="try every write, not steps of them")
    options = parser.parse_args()
    tasks = [task for task in TASKS if task.name in options.tasks.split(",")]
    limits = [lim for lim in LIMITS if any(part in lim.name for part in options.only.split(","))]
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        scratch = Path(folder)
        with tiny_place(scratch) as place:
            bench = Bench(scratch, every=options.every)
            print("| limit | " + " | ".join(task.name for task in tasks) + " |")
            print("|---|" + "---|" * len(tasks), flush=True)
            for limit in limits:
                print(f"| {limit.name} |", end="", flush=True)
                for task in tasks:
                    shown, wrong = cell(bench, place, task, limit)
                    for fault in wrong:
                        print(f"{limit.name}, {task.name}, {fault}\n", file=sys.stderr, flush=True)
                    faults += wrong
                    print(f" {shown}{' WRONG' if wrong else ''} |", end="", flush=True)
                print()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
