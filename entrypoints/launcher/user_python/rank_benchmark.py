"""The full preflight on each rank: a GEMM and all-reduces. Runs in the user's Python with torch.

Started by the job's own runner, so it takes the way that training will take. Writes one JSON file
per rank to $LAUNCH_PREFLIGHT_DIR, and before that an empty ARRIVED file, by which the launcher
knows whom the others are waiting for. Imports nothing of the launcher: another interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

ROUNDS = 5
#: Large enough for NVLink's bandwidth, not its latency (NVIDIA/nccl-tests#212: 256 MiB is not), and
#: small enough for GPUs of 16 GB and for nodes on 5 Gbit/s.
MESSAGE_BYTES = 1 << 30


def main() -> None:
    """Measure, and leave the figures."""
    torch: Any = importlib.import_module("torch")
    dist: Any = importlib.import_module("torch.distributed")
    rank, local, world = (int(os.environ[n]) for n in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    out = Path(os.environ["LAUNCH_PREFLIGHT_DIR"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    teraflops, finite = measure_gemm(torch, device, cuda)
    (out / f"arrived.{rank}").touch()
    dist.init_process_group("nccl" if cuda else "gloo")
    result = {
        "rank": rank,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "teraflops": round(teraflops, 2),
        "finite": finite,
        **measure_all_reduce(torch, dist, device, cuda, world),
    }
    dist.destroy_process_group()
    beside = out / f"result.{rank}.tmp"
    beside.write_text(json.dumps(result), encoding="utf-8")
    beside.replace(out / f"result.{rank}.json")


def measure_gemm(torch: Any, device: Any, cuda: bool) -> tuple[float, bool]:
    """(TFLOP/s of a bf16 product, whether it holds no NaN); a sick GPU shows in either."""
    size = 8192 if cuda else 256
    left = torch.randn(size, size, device=device).bfloat16()
    product = left @ left
    began = _clock(torch, cuda)
    for _ in range(ROUNDS):
        product = left @ left
    seconds = _clock(torch, cuda) - began
    return 2 * size**3 * ROUNDS / seconds / 1e12, bool(torch.isfinite(product).all())


def measure_all_reduce(
    torch: Any, dist: Any, device: Any, cuda: bool, world: int
) -> dict[str, Any]:
    """Bus bandwidth in GB/s as nccl-tests defines it, and whether the sum was right."""
    count = (MESSAGE_BYTES if cuda else 1 << 20) // 4
    data = torch.ones(count, device=device)
    dist.all_reduce(data)
    right = bool((data == world).all())
    dist.barrier()
    began = _clock(torch, cuda)
    for _ in range(ROUNDS):
        dist.all_reduce(data)
    seconds = (_clock(torch, cuda) - began) / ROUNDS
    factor = 2 * (world - 1) / world
    return {"sum_right": right, "busbw_gbs": round(count * 4 / seconds * factor / 1e9, 3)}


def _clock(torch: Any, cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
