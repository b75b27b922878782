"""One rank of the measurement of what watching costs; rank 0 writes the figures to a file.

Steps of matrix products and an all-reduce; then all-reduces of 1 GiB alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

WARM_UP = 30


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch: Any = importlib.import_module("torch")
    dist: Any = importlib.import_module("torch.distributed")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    size, products, large = (4096, 40, 1 << 28) if cuda else (256, 20, 1 << 20)
    kind = torch.bfloat16 if cuda else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def step() -> None:
        for _ in range(products):
            torch.matmul(left, right)
        dist.all_reduce(left)
        left.normal_()

    data = torch.zeros(large, device=device)
    steps = measure(torch, step, options.steps, cuda=cuda)
    reduces = measure(torch, lambda: dist.all_reduce(data), 20, cuda=cuda)
    if dist.get_rank() == 0:
        found = {"step": statistics.median(steps), "allreduce": statistics.median(reduces)}
        options.out.write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def measure(torch: Any, work: Any, count: int, *, cuda: bool) -> list[float]:
    """Seconds of each repetition after the first ones."""
    seconds = []
    for number in range(WARM_UP + count):
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
