"""One rank of the all-reduce measurement; rank 0 writes the figures to a file.

Sums are in place and of float32. A batch is at most ITERATIONS of them, so that the values, which
grow by the number of ranks each time, stay finite; fresh ones are drawn between batches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

ITERATIONS = 20
BATCH_SECONDS = 0.1
SIZE_SECONDS = 0.5
BATCHES = (5, 30)


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", required=True, help="bytes, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch: Any = importlib.import_module("torch")
    dist: Any = importlib.import_module("torch.distributed")
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    rows = [measure(torch, dist, device, int(text)) for text in options.sizes.split(",")]
    if dist.get_rank() == 0:
        name = torch.cuda.get_device_name(device) if cuda else "cpu"
        found = {"world": dist.get_world_size(), "device": name, "rows": rows}
        options.out.write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def measure(torch: Any, dist: Any, device: Any, size: int) -> dict[str, Any]:
    """Seconds of one all-reduce of `size` bytes: each batch's mean, on the slowest rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    data = torch.full((size // 4,), float(rank + 1), device=device)
    dist.all_reduce(data)
    right = bool((data == world * (world + 1) / 2).all())
    seconds = batch(torch, dist, data, 3)
    agreed = torch.tensor([seconds], device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
    once = float(agreed)
    iterations = max(1, min(ITERATIONS, math.ceil(BATCH_SECONDS / once)))
    least, most = BATCHES
    batches = max(least, min(most, math.ceil(SIZE_SECONDS / (once * iterations))))
    times = torch.tensor([batch(torch, dist, data, iterations) for _ in range(batches)])
    times = times.to(device)
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    return {"bytes": size, "right": right, "iterations": iterations, "seconds": times.tolist()}


def batch(torch: Any, dist: Any, data: Any, iterations: int) -> float:
    """The mean seconds of some all-reduces that begin together."""
    data.uniform_()
    dist.barrier()
    began = clock(torch, data.is_cuda)
    for _ in range(iterations):
        dist.all_reduce(data)
    return (clock(torch, data.is_cuda) - began) / iterations


def clock(torch: Any, cuda: bool) -> float:
    """The time when the device has done all it was told to."""
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
