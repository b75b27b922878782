"""What the launcher's full preflight measures here, several times over."""

from __future__ import annotations

import json
import re
from typing import Any

from bench.gpu.bench import LAUNCH, Bench
from bench.gpu.report import Result, Table

RUNS = 2
FIGURES = re.compile(r"([\d.e+]+) TFLOP/s, all-reduce ([\d.e+]+) GB/s")
#: Of the lowest figure seen on healthy GPUs: scatter between machines and message sizes is below
#: a fifth, and a throttled GPU or a lost NVLink costs more than that.
FLOOR_SHARE = 0.8


def preflight(bench: Bench, result: Result) -> None:
    """`launch preflight --preflight full`, its figures, and floors that they suggest."""
    result.data["runs"] = []
    figures: list[tuple[str, float, float]] = []
    seconds: list[float] = []
    for _ in range(RUNS):
        argv = [*LAUNCH, "preflight", "--preflight=full", "--json"]
        run = bench.start(argv, first=0, count=bench.gpus)
        code = run.end()
        checks = checks_of(run.lines)
        result.data["runs"].append({"code": code, "seconds": run.seconds, "checks": checks})
        seconds.append(run.seconds)
        bad = [f"{c['name']}: {c['text']}" for c in checks if c["level"] == "fail"]
        result.need(code == 0, f"exit code {code}: {'; '.join(bad) or run.lines[-1:]}")
        for check in checks:
            match = FIGURES.search(check["text"])
            if match:
                figures.append((check["name"], float(match[1]), float(match[2])))
    result.need(len(figures) == RUNS * (bench.gpus if bench.cuda else 1), "figures are missing")
    if not figures:
        return
    gemm = [speed for _, speed, _ in figures]
    bandwidth = [speed for _, _, speed in figures]
    rows = [
        (name, *(f"{f:.3g}" for f in (min(values), max(values), FLOOR_SHARE * min(values))))
        for name, values in (("GEMM, TFLOP/s", gemm), ("all-reduce, GB/s", bandwidth))
    ]
    rows.append(("seconds", f"{min(seconds):.1f}", f"{max(seconds):.1f}", ""))
    title = f"launch preflight --preflight full, {bench.gpus} ranks, {RUNS} runs"
    head = ("", "lowest", "highest", f"floor: {FLOOR_SHARE:.0%} of the lowest")
    result.tables.append(Table(title, head, rows))


def checks_of(lines: list[str]) -> list[dict[str, Any]]:
    """The JSON document among the launcher's own lines."""
    text = "\n".join(line for line in lines if not line.startswith(("launch: ", "[")))
    start = text.find("{\n")
    if start < 0:
        return []
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(text[start:])[0]["checks"]
    return found
