"""One rank of a measurement: `allreduce` or `steps`, whose figures rank 0 writes to a file, or
`failing`, which works until something goes wrong.

It runs in the Python that has torch, as a script under torchrun or `launch`; with NCCL where there
are GPUs, with gloo elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ITERATIONS = 20
BATCH_SECONDS = 0.1
SIZE_SECONDS = 0.5
BATCHES = (5, 30)
WARM_UP = 30
#: Far more than any GPU, or machine, has.
TOO_MUCH = 1 << 50
STEPS_BEFORE = 20


@dataclass(frozen=True)
class Group:
    """The ranks of a job, as one of them has them."""

    torch: Any
    dist: Any
    device: Any
    cuda: bool

    def clock(self) -> float:
        """The time when the device has done all it was told to."""
        if self.cuda:
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def save(self, path: Path, figures: dict[str, Any]) -> None:
        """Have rank 0 write what was measured, and end together."""
        if self.dist.get_rank() == 0:
            path.write_text(json.dumps(figures), encoding="utf-8")
        self.dist.barrier()
        self.dist.destroy_process_group()


def join_group() -> Group:
    """Meet the other ranks."""
    torch: Any = importlib.import_module("torch")
    dist: Any = importlib.import_module("torch.distributed")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    return Group(torch, dist, device, cuda)


def allreduce(options: argparse.Namespace) -> None:
    """All-reduces of several sizes.

    Sums are in place and of float32. A batch is at most ITERATIONS of them, so that the values,
    which grow by the number of ranks each time, stay finite; fresh ones are drawn between batches.
    """
    group = join_group()
    rows = [measure_size(group, int(text)) for text in options.sizes.split(",")]
    name = group.torch.cuda.get_device_name(group.device) if group.cuda else "cpu"
    figures = {"world": group.dist.get_world_size(), "device": name, "rows": rows}
    group.save(options.out, figures)


def measure_size(group: Group, size: int) -> dict[str, Any]:
    """Seconds of one all-reduce of `size` bytes: each batch's mean, on the slowest rank."""
    torch, dist = group.torch, group.dist
    rank, world = dist.get_rank(), dist.get_world_size()
    data = torch.full((size // 4,), float(rank + 1), device=group.device)
    dist.all_reduce(data)
    right = bool((data == world * (world + 1) / 2).all())
    agreed = torch.tensor([batch(group, data, 3)], device=group.device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
    once = float(agreed)
    iterations = max(1, min(ITERATIONS, math.ceil(BATCH_SECONDS / once)))
    least, most = BATCHES
    batches = max(least, min(most, math.ceil(SIZE_SECONDS / (once * iterations))))
    times = torch.tensor([batch(group, data, iterations) for _ in range(batches)])
    times = times.to(group.device)
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    return {"bytes": size, "right": right, "iterations": iterations, "seconds": times.tolist()}


def batch(group: Group, data: Any, iterations: int) -> float:
    """The mean seconds of some all-reduces that begin together."""
    data.uniform_()
    group.dist.barrier()
    began = group.clock()
    for _ in range(iterations):
        group.dist.all_reduce(data)
    return (group.clock() - began) / iterations


def steps(options: argparse.Namespace) -> None:
    """Steps of matrix products and an all-reduce; then all-reduces of 1 GiB alone."""
    group = join_group()
    torch, dist = group.torch, group.dist
    size, products, large = (4096, 40, 1 << 28) if group.cuda else (256, 20, 1 << 20)
    kind = torch.bfloat16 if group.cuda else torch.float32
    left, right = (torch.randn(size, size, device=group.device, dtype=kind) for _ in range(2))

    def step() -> None:
        for _ in range(products):
            torch.matmul(left, right)
        dist.all_reduce(left)
        left.normal_()

    data = torch.zeros(large, device=group.device)
    figures = {
        "step": statistics.median(repeat(group, step, options.steps)),
        "allreduce": statistics.median(repeat(group, lambda: dist.all_reduce(data), 20)),
    }
    group.save(options.out, figures)


def repeat(group: Group, work: Callable[[], object], count: int) -> list[float]:
    """Seconds of each repetition after the first ones."""
    seconds = []
    for number in range(WARM_UP + count):
        began = time.perf_counter()
        work()
        ended = group.clock()
        if number >= WARM_UP:
            seconds.append(ended - began)
    return seconds


def failing(options: argparse.Namespace) -> None:
    """Compute and add up without end, until it is killed or rank --rank runs out of memory.

    With --saves it has a SIGTERM handler, as scripts have that write a checkpoint: such a rank does
    not die of the signal, and sits in a collective that its dead peer will never join.
    """
    if options.saves:
        signal.signal(signal.SIGTERM, lambda number, frame: print("told to save"))  # noqa: ARG005
    group = join_group()
    rank = group.dist.get_rank()
    size = 4096 if group.cuda else 256
    weights = group.torch.randn(size, size, device=group.device) / size**0.5
    step = 0
    while True:
        weights = (weights @ weights).clamp(-1, 1)
        group.dist.all_reduce(weights, op=group.dist.ReduceOp.MAX)
        total = float(weights.sum())  # waits for the device
        step += 1
        if step == STEPS_BEFORE:
            print(f"rank {rank} works, pid {os.getpid()}, sum {total:.3g}", flush=True)
            if options.fault == "memory" and rank == options.rank:
                group.torch.empty(TOO_MUCH, dtype=group.torch.uint8, device=group.device)


def main() -> None:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    works = parser.add_subparsers(required=True)
    for work in (allreduce, steps, failing):
        chosen = works.add_parser(work.__name__, description=work.__doc__)
        chosen.set_defaults(work=work)
        if work is failing:
            chosen.add_argument("--fault", choices=("wait", "memory"), required=True)
            chosen.add_argument("--rank", type=int, required=True)
            chosen.add_argument("--saves", action="store_true")
            continue
        chosen.add_argument("--out", type=Path, required=True)
        if work is allreduce:
            chosen.add_argument("--sizes", required=True, help="bytes, separated by commas")
        else:
            chosen.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
