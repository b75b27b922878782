"""Speed and memory of the examples, with models that fill a good part of the GPUs."""

from __future__ import annotations

import statistics
from typing import Any

from bench.gpu.bench import Bench, complain
from bench.gpu.examples import FSDP, STATE_BYTES, ZERO3, Example, Shape, shape_for
from bench.gpu.examples import said as said_by
from bench.gpu.report import Result, Table

#: Steps between two lines; the first line is after the first step.
WINDOW = 3
WINDOWS = 3
GIB = 1 << 30


def worlds(gpus: int) -> list[int]:
    """1, 2, 4... and all of them."""
    powers = [1 << n for n in range(gpus.bit_length()) if 1 << n < gpus]
    return [*powers, gpus]


def zero3(bench: Bench, result: Result) -> None:
    """DeepSpeed ZeRO-3, a model for all GPUs together."""
    _large(bench, result, ZERO3)


def fsdp(bench: Bench, result: Result) -> None:
    """FSDP2, a model for all GPUs together."""
    _large(bench, result, FSDP)


def scaling(bench: Bench, result: Result) -> None:
    """One model that fits one GPU, the same work per GPU on 1, 2, 4... of them."""
    shape = _fitting(bench, 1)
    for example in (FSDP, ZERO3):
        title = f"{example.name}, {shape.parameters / 1e9:.2f} billion parameters, weak scaling"
        rows: list[list[str]] = []
        result.tables.append(Table(title, HEAD, rows))
        alone = 0.0
        for world in worlds(bench.gpus):
            run = _measure(bench, result, example, shape, world)
            if "tokens_per_s" in run:
                alone = alone or run["tokens_per_s"] / world
                rows.append(_row(bench, run, alone))


HEAD = ("GPUs", "tokens/s", "of linear", "model TFLOP/s per GPU", "peak memory GiB", "of the GPU")


def _large(bench: Bench, result: Result, example: Example) -> None:
    shape = _fitting(bench, bench.gpus)
    run = _measure(bench, result, example, shape, bench.gpus)
    if "tokens_per_s" in run:
        title = f"{example.name}, {shape.parameters / 1e9:.1f} billion parameters"
        # "of linear" belongs to a comparison.
        row = [cell for cell, name in zip(_row(bench, run, 0.0), HEAD) if name != "of linear"]  # noqa: B905
        result.tables.append(Table(title, [name for name in HEAD if name != "of linear"], [row]))


def _fitting(bench: Bench, world: int) -> Shape:
    """A model whose weights, gradients and optimizer take the wanted share of so many GPUs."""
    if not bench.cuda:
        return Shape(layers=2, hidden=128, heads=4, vocab=512)
    return shape_for(bench.share * bench.host.memory * world / STATE_BYTES)


def _measure(
    bench: Bench, result: Result, example: Example, shape: Shape, world: int
) -> dict[str, Any]:
    """Train for some windows of steps; the medians of those after the first two lines.

    The run is then killed: what follows is a final model on the disk, tens of GB, which says
    nothing about training.
    """
    out = bench.work / f"{example.name}-{world}"
    words = [*shape.words(), "--steps=1000000", f"--log-every={WINDOW}", "--checkpoint-every=0"]
    words += [f"--checkpoint-dir={out}/checkpoints", f"--output-dir={out}/model", "--recompute=on"]
    words += ["--seq=2048", "--batch=4"] if bench.cuda else ["--seq=64", "--batch=2"]
    run = example.start(bench, words, count=world)
    lines = 2 + WINDOWS
    run.wait_for(r'\{"event": "step"', lines)
    steps = said_by(run.lines, "step")
    found: dict[str, Any] = {"example": example.name, "world": world, "shape": shape.words()}
    result.data.setdefault("runs", []).append(found)
    if len(steps) < lines:
        found["why"] = complain(run, run.end())
        result.problems.append(f"{example.name} on {world}: {found['why']}")
        return found
    run.kill()
    for name in ("tokens_per_s", "tflops_per_rank"):
        values = [step[name] for step in steps[2:lines] if name in step]
        if values:
            found[name] = statistics.median(values)
    peak = steps[lines - 1]["peak_memory_gib"]
    found.update(parameters=shape.parameters, peak_memory_gib=peak, steps=steps)
    return found


def _row(bench: Bench, run: dict[str, Any], alone: float) -> list[str]:
    linear = run["tokens_per_s"] / (alone * run["world"]) if alone else 0.0
    peak = run["peak_memory_gib"]
    share = f"{peak * GIB / bench.host.memory:.0%}" if bench.host.memory else ""
    tera = f"{run['tflops_per_rank']:.0f}" if bench.cuda and "tflops_per_rank" in run else ""
    speed = f"{run['tokens_per_s']:,.0f}"
    return [str(run["world"]), speed, f"{linear:.1%}", tera, f"{peak:.1f}", share]
