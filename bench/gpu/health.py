"""What the full preflight measures here, and whether its floors tell ill from healthy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bench.gpu.bench import LAUNCH, Bench
from bench.gpu.report import Result, Table
from launcher.causes import PREFLIGHT
from launcher.instances import find_instance

RUNS = 2
FIGURES = re.compile(r"([\d.e+]+) TFLOP/s sustained.*, all-reduce ([\d.e+]+) GB/s")
#: Of the lowest figure seen on healthy GPUs: scatter between machines is below a fifth, and a
#: throttled GPU or a lost NVLink costs more than that.
FLOOR_SHARE = 0.8
#: NCCL then goes through the host's memory, as where NVLink is broken.
NO_NVLINK = {"NCCL_P2P_DISABLE": "1"}


def preflight(bench: Bench, result: Result) -> None:
    """`launch preflight --preflight full`, its figures, and floors that they suggest.

    With `--instance` the type's floors apply: as it is the machine has to pass, and without NVLink
    it has to fail, where the type has a floor for that.
    """
    result.data["runs"] = []
    wanted = RUNS * (bench.gpus if bench.cuda else 1)
    healthy: list[tuple[float, float]] = []
    seconds: list[float] = []
    for _ in range(RUNS):
        run = _run(bench, result, {})
        healthy += run["figures"]
        seconds.append(run["seconds"])
        why = "; ".join(run["failed"]) or run["last"]
        result.need(run["code"] == 0, f"exit code {run['code']}: {why}")
    result.need(len(healthy) == wanted, f"{len(healthy)} of {wanted} figures")
    if not healthy:
        return
    rows = [
        _row("GEMM, TFLOP/s", [speed for speed, _ in healthy]),
        _row("all-reduce, GB/s", [speed for _, speed in healthy]),
        ("seconds", f"{min(seconds):.1f}", f"{max(seconds):.1f}", ""),
    ]
    if bench.cuda and bench.gpus > 1:
        rows.append(_without_nvlink(bench, result))
    kind = bench.instance or "type not told"
    title = f"launch preflight --preflight full, {bench.gpus} ranks, {RUNS} runs, {kind}"
    head = ("", "lowest", "highest", f"{FLOOR_SHARE:.0%} of the lowest")
    result.tables.append(Table(title, head, rows))


def _without_nvlink(bench: Bench, result: Result) -> tuple[str, ...]:
    run = _run(bench, result, NO_NVLINK)
    instance = find_instance(bench.instance)
    if instance and instance.nvlink_floor:
        said = f"passes {instance.nvlink_floor} GB/s"
        result.need(run["code"] == PREFLIGHT, f"without NVLink: exit code {run['code']}")
        result.need(any(said in text for text in run["failed"]), f"without NVLink: not {said!r}")
    speeds = [speed for _, speed in run["figures"]] or [0.0]
    name = f"all-reduce without NVLink, GB/s (exit code {run['code']})"
    return (name, f"{min(speeds):.3g}", f"{max(speeds):.3g}", "")


def _run(bench: Bench, result: Result, env: Mapping[str, str]) -> dict[str, Any]:
    argv = [*LAUNCH, "preflight", "--preflight=full", "--json"]
    if bench.instance:
        argv.append(f"--instance-type={bench.instance}")
    run = bench.start(argv, first=0, count=bench.gpus, env=env)
    code = run.end()
    checks = checks_of(run.lines)
    matches = [match for match in (FIGURES.search(check["text"]) for check in checks) if match]
    found = {
        "env": dict(env),
        "code": code,
        "seconds": run.seconds,
        "checks": checks,
        "failed": [f"{c['name']}: {c['text']}" for c in checks if c["level"] == "fail"],
        "last": next(iter(run.lines[-1:]), "no output"),
        "figures": [(float(match[1]), float(match[2])) for match in matches],
    }
    result.data["runs"].append(found)
    return found


def _row(name: str, values: list[float]) -> tuple[str, ...]:
    return (name, *(f"{f:.3g}" for f in (min(values), max(values), FLOOR_SHARE * min(values))))


def checks_of(lines: list[str]) -> list[dict[str, Any]]:
    """The JSON document among the launcher's own lines."""
    text = "\n".join(line for line in lines if not line.startswith(("launch: ", "[")))
    start = text.find("{\n")
    if start < 0:
        return []
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(text[start:])[0]["checks"]
    return found
