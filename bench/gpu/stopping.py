"""SIGTERM, a checkpoint, and going on from it with as many GPUs and with half of them."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.bench import Bench, complain
from bench.gpu.examples import FSDP, ZERO3, Example, Shape
from bench.gpu.examples import said as said_by
from bench.gpu.report import Result, Table

#: What `launch local` ends with after SIGTERM (entrypoints/README.md, "Exit codes").
STOPPED = 143
MORE_STEPS = 6
#: The example's words for a checkpoint that was written by another number of ranks.
REFUSAL = re.compile(r"(the ZeRO state of \d+ ranks, and .*?)\. .*?`?(python -m deepspeed[^`;]*)")


def stop_resume(bench: Bench, result: Result) -> None:
    """Both examples; each row is one run."""
    rows: list[list[str]] = []
    for example in (FSDP, ZERO3):
        rows += _one(bench, result, example)
    head = ("example", "GPUs", "what", "exit code", "s", "outcome")
    result.tables.append(Table("SIGTERM, checkpoint, resume", head, rows))


def _one(bench: Bench, result: Result, example: Example) -> list[list[str]]:
    place = bench.work / f"stop-{example.name}"
    saved, rows = _stop(bench, result, example, place)
    if saved is None:
        return rows
    for world in dict.fromkeys((bench.gpus, max(1, bench.gpus // 2))):
        outcome, advice = _go_on(bench, result, example, place, world, saved, rows)
        # ZeRO's parts belong to ranks: with another number of them it has to say what to do.
        if advice and world != bench.gpus and example is ZERO3:
            run = bench.start([sys.executable, *advice[1:]], first=0, count=world)
            code = run.end()
            text = "done" if code == 0 else complain(run, code)
            rows.append(_row(example, "", "conversion, as told", code, run.seconds, text))
            outcome, _ = _go_on(bench, result, example, place, world, saved, rows)
        result.need(outcome.startswith("went on"), f"{example.name} on {world}: {outcome}")
    return rows


def _stop(
    bench: Bench, result: Result, example: Example, place: Path
) -> tuple[int | None, list[list[str]]]:
    """Train, send SIGTERM; the step that was saved."""
    words = _words(bench, place, ["--steps=1000000"])
    options = [f"--checkpoint-dir={place}/checkpoints"]
    run = example.start(bench, words, count=bench.gpus, options=options)
    if len(run.wait_for(r'\{"event": "step"', 3)) < 3:
        result.problems.append(f"{example.name}: {complain(run, run.end())}")
        return None, []
    run.terminate()
    began = time.monotonic()
    code = run.end()
    seconds = time.monotonic() - began
    ended = said_by(run.lines, "summary")
    saved = ended[-1]["saved_step"] if ended and ended[-1]["status"] == "stopped" else None
    outcome = complain(run, code) if saved is None else f"saved step {saved}, {_size(place)}"
    _note(result, example, bench.gpus, "SIGTERM", code, seconds, outcome)
    result.need(saved is not None, f"{example.name}: nothing saved on SIGTERM: {outcome}")
    result.need(code == STOPPED, f"{example.name}: exit code {code} after SIGTERM")
    return saved, [_row(example, bench.gpus, "SIGTERM to the end", code, seconds, outcome)]


def _go_on(
    bench: Bench,
    result: Result,
    example: Example,
    place: Path,
    world: int,
    saved: int,
    rows: list[list[str]],
) -> tuple[str, list[str]]:
    """Resume from what is on the disk: the outcome, and the command that a refusal advises."""
    words = _words(bench, place, [f"--steps={saved + MORE_STEPS}"])
    options = [f"--checkpoint-dir={place}/checkpoints", "--resume=auto"]
    run = example.start(bench, words, count=world, options=options)
    code = run.end()
    ended = said_by(run.lines, "summary")
    advice: list[str] = []
    if code == 0 and ended and ended[-1]["first_step"] == saved + 1:
        outcome = f"went on with step {saved + 1}, loss {ended[-1]['losses'][0]:g}"
    else:
        outcome = complain(run, code)
        refusals = [match for match in map(REFUSAL.search, run.lines) if match]
        if refusals:
            outcome, advice = f"refused: {refusals[0][1]}", shlex.split(refusals[0][2])
    _note(result, example, world, "resume", code, run.seconds, outcome)
    rows.append(_row(example, world, "resume", code, run.seconds, outcome))
    return outcome, advice


def _words(bench: Bench, place: Path, words: Sequence[str]) -> list[str]:
    shape = Shape(12, 1024, 8, 32000) if bench.cuda else Shape(2, 128, 4, 512)
    size = ["--seq=2048", "--batch=4"] if bench.cuda else ["--seq=64", "--batch=2"]
    directories = [f"--checkpoint-dir={place}/checkpoints", f"--output-dir={place}/model"]
    return [*shape.words(), *size, *directories, "--log-every=3", "--checkpoint-every=0", *words]


def _size(place: Path) -> str:
    total = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return f"{total / 1e9:.2f} GB"


def _note(result: Result, example: Example, *values: Any) -> None:
    names = ("world", "what", "code", "seconds", "outcome")
    found = dict(zip(names, values))  # noqa: B905
    result.data.setdefault("runs", []).append({"example": example.name, **found})


def _row(
    example: Example, world: int | str, what: str, code: int, seconds: float, outcome: str
) -> list[str]:
    return [example.name, str(world), what, str(code), f"{seconds:.1f}", outcome]
