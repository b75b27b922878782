"""One rank that works until something goes wrong: it is killed, or rank --rank runs out of memory.

With --saves it has a SIGTERM handler, as scripts have that write a checkpoint: such a rank does
not die of the signal, and sits in a collective that its dead peer will never join.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from typing import Any

#: Far more than any GPU, or machine, has.
TOO_MUCH = 1 << 50
STEPS_BEFORE = 20


def main() -> None:
    """Compute and add up, without end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=("wait", "memory"), required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--saves", action="store_true")
    options = parser.parse_args()
    if options.saves:
        signal.signal(signal.SIGTERM, lambda number, frame: print("told to save"))  # noqa: ARG005
    torch: Any = importlib.import_module("torch")
    dist: Any = importlib.import_module("torch.distributed")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    rank = dist.get_rank()
    size = 4096 if cuda else 256
    weights = torch.randn(size, size, device=device) / size**0.5
    step = 0
    while True:
        weights = (weights @ weights).clamp(-1, 1)
        dist.all_reduce(weights, op=dist.ReduceOp.MAX)
        total = float(weights.sum())  # waits for the device
        step += 1
        if step == STEPS_BEFORE:
            print(f"rank {rank} works, pid {os.getpid()}, sum {total:.3g}", flush=True)
            if options.fault == "memory" and rank == options.rank:
                torch.empty(TOO_MUCH, dtype=torch.uint8, device=device)


if __name__ == "__main__":
    main()
