"""The full preflight on each rank: a GEMM and all-reduces. Runs in the user's Python with torch.

Started by the job's own runner, so it takes the way that training will take. Writes one JSON file
per rank to $LAUNCH_PREFLIGHT_DIR, and before that an empty ARRIVED file, by which the launcher
knows whom the others are waiting for. Imports nothing of the launcher: another interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

ROUNDS = 5
#: Until the clock stands: windows of so many seconds that differ by less than a share, at most so
#: many; then the windows that count.
SETTLE_WINDOW, SETTLE_SHARE, SETTLE_MOST = 0.5, 0.02, 12
WINDOW, WINDOWS = 1.0, 5
STATE = (
    "power.draw", "power.limit", "clocks.sm", "clocks.max.sm", "clocks_event_reasons.active",
    "temperature.gpu",
)  # fmt: skip
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
    gemm = measure_gemm(torch, device, cuda)
    (out / f"arrived.{rank}").touch()
    dist.init_process_group("nccl" if cuda else "gloo")
    result = {
        "rank": rank,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        **gemm,
        **measure_all_reduce(torch, dist, device, cuda, world),
    }
    dist.destroy_process_group()
    beside = out / f"result.{rank}.tmp"
    beside.write_text(json.dumps(result), encoding="utf-8")
    beside.replace(out / f"result.{rank}.json")


def measure_gemm(torch: Any, device: Any, cuda: bool) -> dict[str, Any]:
    """What a bf16 product sustains in TFLOP/s, and whether it holds no NaN; a sick GPU shows.

    A GPU that was idle has to raise its clock first, and one under load lowers it again when its
    power or heat reaches the limit: five products after one warm-up are 7 ms of that climb. So:
    load until two windows in a row agree, then the median of windows of a second each.
    """
    size = 8192 if cuda else 256
    left = torch.randn(size, size, device=device).bfloat16()
    window = (SETTLE_WINDOW, WINDOW) if cuda else (0.01, 0.02)
    _window(torch, left, cuda, window[0])
    settling = [_window(torch, left, cuda, window[0])]
    while len(settling) < SETTLE_MOST:
        settling.append(_window(torch, left, cuda, window[0]))
        if abs(settling[-1] - settling[-2]) < SETTLE_SHARE * settling[-2]:
            break
    seen = []
    state: dict[str, Any] = {}
    for number in range(WINDOWS):
        # Asked for while the GPU is at work: afterwards it says what it does at rest.
        state = gpu_state(device) if cuda and number == WINDOWS - 1 else state
        seen.append(_window(torch, left, cuda, window[1]))
    product = left @ left
    return {
        "teraflops": round(statistics.median(seen), 2),
        "windows": [round(speed, 1) for speed in seen],
        "settling": [round(speed, 1) for speed in settling],
        "finite": bool(torch.isfinite(product).all()),
        **state,
    }


def _window(torch: Any, left: Any, cuda: bool, seconds: float) -> float:
    """TFLOP/s of products for about so many seconds; the queue of the GPU never runs empty."""
    size, batch, count = left.shape[0], 20 if cuda else 1, 0
    began = _clock(torch, cuda)
    event = None
    while time.perf_counter() - began < seconds:
        for _ in range(batch):
            left @ left
        count += batch
        if cuda:
            # One batch ahead: the clock above then counts what the GPU has done.
            if event is not None:
                event.synchronize()
            event = torch.cuda.Event()
            event.record()
    return float(2 * size**3 * count / (_clock(torch, cuda) - began) / 1e12)


def gpu_state(device: Any) -> dict[str, Any]:
    """Power, clock and what holds the clock back, as nvidia-smi says under load; {} without it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    name = visible[device.index] if device.index < len(visible) else ""
    argv = ["nvidia-smi", f"--id={name.strip() or device.index}"]
    argv += [f"--query-gpu={','.join(STATE)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    cells = [cell.strip() for cell in answer.stdout.strip().split(",")]
    if answer.returncode or len(cells) != len(STATE):
        return {}
    return dict(
        zip(("watts", "watts_limit", "sm_mhz", "sm_mhz_most", "held_back", "celsius"), cells)
    )


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
