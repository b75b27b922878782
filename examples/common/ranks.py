"""The ranks of a job: who this one is, its device, what all of them agree on."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int
    local: int
    world: int
    local_world: int
    device: torch.device
    backend: str

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what exists once."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Whether this is the one of its node that does what is done once per node."""
        return self.local == 0


def find() -> Ranks:
    """From the variables that every launcher sets; alone without them."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
        os.environ.update({name: str(value) for name, value in alone.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    backend = os.environ.get("LAUNCH_BACKEND") or ("nccl" if torch.cuda.is_available() else "gloo")
    local = int(os.environ["LOCAL_RANK"])
    world = int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", local) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Ranks(
        rank=int(os.environ["RANK"]),
        local=local,
        world=world,
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", world)),
        device=device,
        backend=backend,
    )


def connect(ranks: Ranks) -> None:
    """Make the default process group."""
    bound = {"device_id": ranks.device} if ranks.device.type == "cuda" else {}
    dist.init_process_group(ranks.backend, **bound)


def finish(ranks: Ranks) -> NoReturn:
    """Part, tell the launcher that this rank's work is done (its `--done-file`), and leave with 0.

    Without the interpreter's own end: threads of gloo, NCCL or CUDA that let go of a tensor while
    it is torn down abort the process, and a finished job fails (pytorch/pytorch#190489, #179291).
    """
    dist.barrier()
    done = os.environ.get("LAUNCH_DONE_FILE")
    if done:
        Path(f"{done}.{ranks.rank}").touch()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def mean(value: torch.Tensor) -> float:
    """Over all ranks."""
    summed = value.detach().float().clone()
    dist.all_reduce(summed)
    return float(summed.item() / dist.get_world_size())


def peak_memory(ranks: Ranks) -> list[float]:
    """GiB that each rank had in use at most: of its GPU, on a CPU of its process."""
    if ranks.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(ranks.device) / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    own = torch.tensor([peak], device=ranks.device)
    every = [torch.zeros_like(own) for _ in range(ranks.world)]
    dist.all_gather(every, own)
    return [round(float(one.item()), 3) for one in every]


class Stop:
    """SIGTERM: finish the step, write a checkpoint, end. The launcher signals every rank."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked = False
        self._answer: torch.Tensor | None = None
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def agreed(self) -> bool:
        """Whether to stop, the same answer on all ranks: call it at the same step on each.

        Signals arrive at different times, and a rank that stops a step before the others leaves
        them waiting in a collective. The answer is that of the call before, so that a GPU need
        not be waited for.
        """
        before = self._answer
        self._answer = torch.tensor(int(self._asked), device=self._device)
        dist.all_reduce(self._answer, op=dist.ReduceOp.MAX)
        return before is not None and bool(before.item())
