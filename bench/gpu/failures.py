"""What the launcher says, and how soon, when a rank is killed or runs out of GPU memory."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import host
from bench.gpu.bench import HERE, Bench
from bench.gpu.report import Result, Table
from bench.gpu.running import Running

WORKS = r"rank (\d+) works, pid (\d+)"
#: From the fault to the launcher's end. torchrun alone takes 30 s when ranks handle SIGTERM.
SOON_SECONDS = 15.0
#: A driver's own bookkeeping; a context that was left behind holds some hundred MiB.
SLACK_MIB = 64
MEMORY_SECONDS = 10.0


def kill9(bench: Bench, result: Result) -> None:
    """SIGKILL for the last rank, of ranks that die of SIGTERM and of ranks that handle it."""
    result.data["runs"] = []
    rows = []
    victim = bench.gpus - 1
    for saves in (False, True):
        before = host.used_memory()
        words = [*_script("wait", victim), *(["--saves"] if saves else [])]
        run = bench.launch(words)
        pids = {int(m[1]): int(m[2]) for m in run.wait_for(WORKS, bench.gpus)}
        if len(pids) != bench.gpus:
            result.problems.append(f"only {len(pids)} of {bench.gpus} ranks came to work")
            run.end()
            continue
        os.kill(pids[victim], signal.SIGKILL)
        seconds, reason, code = _aftermath(run)
        left = [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
        held = _still_held(before)
        name = "handle SIGTERM" if saves else "do not handle SIGTERM"
        rows.append((name, str(code), f"{seconds:.1f}", str(held), reason.partition("\n")[0]))
        found = {"ranks": name, "code": code, "seconds": seconds, "mib_held": held}
        result.data["runs"].append({**found, "reason": reason})
        result.need(code == 1, f"{name}: exit code {code}")
        wanted = f"killed by SIGKILL on rank {victim}"
        result.need(wanted in reason, f"{name}: the reason does not say {wanted!r}: {reason}")
        result.need(not left, f"{name}: processes {left} are left")
        result.need(held == 0, f"{name}: {held} MiB of GPU memory still in use")
        result.need(seconds < SOON_SECONDS, f"{name}: {seconds:.1f} s until all had ended")
    head = ("ranks that", "exit code", "s to the end", "MiB still held", "reason")
    title = f"kill -9 of rank {victim} of {bench.gpus}"
    result.tables.append(Table(title, head, rows))


def oom(bench: Bench, result: Result) -> None:
    """One rank asks for more memory than there is."""
    victim = bench.gpus - 1
    before = host.used_memory()
    run = bench.launch(_script("memory", victim))
    run.wait_for(WORKS, bench.gpus)
    seconds, reason, code = _aftermath(run)
    held = _still_held(before)
    first = reason.partition("\n")[0]
    row = (str(code), f"{seconds:.1f}", str(held), first)
    head = ("exit code", "s to the end", "MiB still held", "reason")
    result.tables.append(Table(f"Out of memory on rank {victim} of {bench.gpus}", head, [row]))
    result.data.update(code=code, seconds=seconds, mib_held=held, reason=reason)
    result.need(code == 1, f"exit code {code}")
    wanted = "OutOfMemoryError: CUDA out of memory" if bench.cuda else "can't allocate memory"
    result.need(wanted in first, f"the reason does not say {wanted!r}: {first}")
    result.need(f"on rank {victim}" in first, f"the reason does not name rank {victim}: {first}")
    result.need(held == 0, f"{held} MiB of GPU memory still in use")
    result.need(seconds < SOON_SECONDS, f"{seconds:.1f} s until all had ended")


def _script(fault: str, victim: int) -> list[str]:
    return [str(HERE / "ranks.py"), "failing", f"--fault={fault}", f"--rank={victim}"]


def _aftermath(run: Running) -> tuple[float, str, int]:
    """Seconds from now to the launcher's end, its reason with the traceback, its exit code."""
    began = time.monotonic()
    code = run.end()
    seconds = round(time.monotonic() - began, 2)
    failed = [event for event in run.events() if event["event"] == "failed"]
    if not failed:
        return seconds, "the launcher gave no reason", code
    return seconds, f"{failed[-1]['cause']}\n{failed[-1]['detail']}".strip(), code


def _still_held(before: Sequence[int]) -> int:
    """MiB in use beyond `before`, on the GPU where that is most; waits a little for the driver."""
    until = time.monotonic() + MEMORY_SECONDS
    while True:
        more = [now - then for now, then in zip(host.used_memory(), before)]  # noqa: B905
        worst = max(more, default=0)
        if worst <= SLACK_MIB:
            return 0
        if time.monotonic() > until:
            return worst
        time.sleep(0.5)
