"""The command line, and the parts one after the other."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu import collectives, failures, health, host, stopping, training, watching
from bench.gpu.bench import Bench
from bench.gpu.report import NotHereError, Result, summary
from bench.gpu.running import OutOfTimeError

#: Each part with the seconds that it may take at most, in the order in which they run.
PARTS: dict[str, tuple[Callable[[Bench, Result], None], int]] = {
    "allreduce": (collectives.allreduce, 180),
    "watching": (watching.watching, 300),
    "two_nodes": (collectives.two_nodes, 120),
    "preflight": (health.preflight, 90),
    "kill9": (failures.kill9, 120),
    "oom": (failures.oom, 60),
    "stop_resume": (stopping.stop_resume, 270),
    "zero3": (training.zero3, 150),
    "fsdp": (training.fsdp, 150),
    "scaling": (training.scaling, 300),
}


def main(doc: str | None) -> int:
    """Everything that was asked for; 1 when a part has failed."""
    chosen = options(doc)
    asked = chosen.only.split(",") if chosen.only else list(PARTS)
    unknown = sorted(set(asked) - set(PARTS))
    if unknown:
        sys.exit(f"--only {','.join(unknown)}: choose from {','.join(PARTS)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    machine = host.look(chosen.device, chosen.gpus)
    name = f"gpu-{chosen.gpus}"
    saved: dict[str, Any] = {"host": machine.facts, "gpus": chosen.gpus, "parts": {}}
    work = Path(tempfile.mkdtemp(prefix="bench-gpu-", dir=chosen.work))
    try:
        with (chosen.out / f"{name}.log").open("w", encoding="utf-8") as log:
            sizes = (chosen.rounds, chosen.share, chosen.instance)
            bench = Bench(machine, chosen.gpus, work, log, *sizes)
            for part in (part for part in PARTS if part in asked):
                left = chosen.budget - (time.monotonic() - began)
                saved["parts"][part] = run_part(bench, part, left)
                saved["seconds"] = round(time.monotonic() - began, 1)
                text = json.dumps(saved, indent=1)
                (chosen.out / f"{name}.json").write_text(text, encoding="utf-8")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(machine.facts))
    print(summary(saved["parts"]).text())
    return int(any(part["state"] == "failed" for part in saved["parts"].values()))


def options(doc: str | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    parser.add_argument("--gpus", type=int, required=True, help="how many to use")
    parser.add_argument("--only", default="", help=f"of {','.join(PARTS)}; default: all")
    parser.add_argument("--out", type=Path, required=True, help="for the figures and the log")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=3, help="of the all-reduce comparison")
    parser.add_argument(
        "--share", type=float, default=0.55, help="of a GPU's memory, for model and optimizer"
    )
    parser.add_argument("--instance", default="", help="a type of EC2, for the preflight's floors")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all parts together")
    parser.add_argument("--work", type=Path, help="for scratch files; default: as mktemp")
    return parser.parse_args()


def run_part(bench: Bench, part: str, left: float) -> dict[str, Any]:
    """One part, whatever becomes of it."""
    run, limit = PARTS[part]
    began = time.monotonic()
    bench.deadline = began + min(limit, left)
    result = Result()
    state = "done"
    print(f"--- {part}", flush=True)
    try:
        if left < limit / 4:
            raise OutOfTimeError("nothing: the budget is used up")
        run(bench, result)
    except NotHereError as error:
        state, result.problems = "not here", [str(error)]
    except OutOfTimeError as error:
        result.problems.append(f"out of time: {error}")
    except Exception as error:  # noqa: BLE001 - the other parts are worth their time
        traceback.print_exc()
        result.problems.append(f"{type(error).__name__}: {error}")
    finally:
        bench.end_all()
    if state == "done" and result.problems:
        state = "failed"
    for table in result.tables:
        print(f"\n{table.text()}\n", flush=True)
    for problem in result.problems:
        print(f"{part}: {problem}", flush=True)
    seconds = round(time.monotonic() - began, 1)
    tables = [{"title": t.title, "head": t.head, "rows": t.rows} for t in result.tables]
    found = {"state": state, "seconds": seconds, "problems": result.problems}
    return {**found, "tables": tables, "data": result.data}
