"""What watching costs: steps and all-reduces under the launcher and torchrun alone in turns."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from bench.gpu.bench import HERE, Bench, complain
from bench.gpu.report import Result, Table

ROUNDS = 10
STEPS = 350
TICKS = os.sysconf("SC_CLK_TCK")


def watching(bench: Bench, result: Result) -> None:
    """Ten runs of each; medians, their spread, and the launcher's share of a core."""
    runs: dict[str, list[dict[str, float]]] = {"torchrun": [], "launch": []}
    shares = []
    for number in range(ROUNDS):
        for way in ("torchrun", "launch") if number % 2 == 0 else ("launch", "torchrun"):
            out = bench.work / f"watching-{way}-{number}.json"
            words = [str(HERE / "ranks.py"), "steps", f"--steps={STEPS}", f"--out={out}"]
            run = bench.launch(words) if way == "launch" else bench.torchrun(words)
            spent, began = 0.0, time.monotonic()
            while way == "launch" and run.process.poll() is None:
                spent = max(spent, launcher_seconds(run.process.pid))
                time.sleep(0.5)
            shares += [spent / (time.monotonic() - began)] if way == "launch" else []
            code = run.end()
            if code != 0:
                result.problems.append(f"{way}: {complain(run, code)}")
                return
            runs[way].append(json.loads(out.read_text()))
    result.data.update(runs=runs, launcher=shares)
    rows = []
    for name in ("step", "allreduce"):
        values = {way: [1e3 * one[name] for one in found] for way, found in runs.items()}
        bare, ours = (statistics.median(values[way]) for way in ("torchrun", "launch"))
        spread = max(values["torchrun"]) / min(values["torchrun"]) - 1
        texts = [f"{bare:.3f}", f"{ours:.3f}", f"{ours / bare - 1:+.2%}", f"{spread:.2%}"]
        rows.append((name, *texts))
    head = ("ms", "torchrun", "launch", "difference", "spread of torchrun alone")
    result.tables.append(Table(f"Watching, {bench.gpus} ranks, {ROUNDS} runs of each", head, rows))
    share = statistics.median(shares)
    text = (f"{share:.2%}", f"{max(shares):.2%}")
    result.tables.append(Table("The launcher, of one core", ("median", "most"), [text]))


def launcher_seconds(pid: int) -> float:
    """CPU time of the launcher's two processes, its start included: what it runs is not counted."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            words = Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")
            if not any(word.endswith(b"launcher/__main__.py") for word in words):
                continue
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # ended meanwhile
    return total
