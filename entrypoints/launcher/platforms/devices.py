"""How many GPUs this node has, and who says so."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Sources by which a job has been given a part of a node's GPUs on purpose.
RESTRICTIONS = ("CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE")


@dataclass(frozen=True)
class Gpus:
    """A count, and the source that it was taken from."""

    count: int
    source: str


def list_gpus() -> str | None:
    """What `nvidia-smi --list-gpus` prints; None where there is no driver."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def visible_ids(env: Mapping[str, str]) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES that CUDA uses; none where nothing is restricted.

    CUDA stops at the first invalid entry (CUDA C++ Programming Guide, CUDA_VISIBLE_DEVICES).
    """
    ids = [item.strip() for item in env.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(itertools.takewhile(lambda item: item not in ("", "-1"), ids))


def count_gpus(env: Mapping[str, str], smi: Callable[[], str | None] = list_gpus) -> Gpus:
    """The GPUs that ranks may use.

    CUDA_VISIBLE_DEVICES is the user's or the platform's restriction and wins; then what Slurm
    granted, then SageMaker's own count, then the driver. No source means no GPU.
    """
    if "CUDA_VISIBLE_DEVICES" in env:
        return Gpus(len(visible_ids(env)), "CUDA_VISIBLE_DEVICES")
    for name in ("SLURM_GPUS_ON_NODE", "SM_NUM_GPUS"):
        text = env.get(name, "")
        if text.isdecimal():
            return Gpus(int(text), name)
    listed = smi()
    if listed is None:
        return Gpus(0, "no NVIDIA driver")
    lines = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return Gpus(len(lines), "nvidia-smi")
