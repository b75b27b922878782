"""The machine that the bench runs on: which GPUs, how much memory, which versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

FACTS = """
import importlib.metadata as m, json, torch
have = {d.metadata["Name"].lower(): d.version for d in m.distributions() if d.metadata["Name"]}
names = ("torch", "transformers", "deepspeed", "peft", "accelerate")
cuda = torch.cuda.is_available()
print(json.dumps({
    "versions": {n: have[n] for n in names if n in have},
    "cuda": torch.version.cuda,
    "nccl": ".".join(str(n) for n in torch.cuda.nccl.version()) if cuda else None,
    "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
    "memory": [torch.cuda.get_device_properties(n).total_memory
               for n in range(torch.cuda.device_count())],
}))
"""


@dataclass(frozen=True)
class Host:
    """What ranks will see. `memory` is bytes of one GPU, the smallest; 0 on CPU."""

    device: str
    gpus: tuple[str, ...]
    memory: int
    facts: Mapping[str, object]

    def env(self, first: int, count: int) -> dict[str, str]:
        """This process's environment, restricted to `count` GPUs from number `first` on."""
        env = dict(os.environ)
        env["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[first : first + count])
        return env


def look(device: str, wanted: int) -> Host:
    """Ask torch, in a process of its own: a CUDA context here would take memory from ranks.

    Raises SystemExit when there are fewer GPUs than wanted.
    """
    done = subprocess.run(
        [sys.executable, "-c", FACTS], stdout=subprocess.PIPE, text=True, check=True
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    facts["machine"] = {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "driver": driver(),
        "nccl_variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("NCCL_", "NVSHMEM_", "TORCH_SYMM_MEM_", "TORCH_NCCL_"))
        },
    }
    if device == "cpu":
        return Host("cpu", (), 0, facts)
    if len(facts["gpus"]) < wanted:
        sys.exit(f"--gpus {wanted}, but torch sees {len(facts['gpus'])} (--device cpu uses gloo)")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(n) for n in range(len(facts["gpus"]))]
    return Host("cuda", tuple(names[:wanted]), min(facts["memory"][:wanted]), facts)


def driver() -> str | None:
    """The NVIDIA driver's version."""
    rows = smi("driver_version")
    return rows[0] if rows else None


def used_memory() -> list[int]:
    """MiB in use on each GPU of the machine, whoever uses them; empty without a driver."""
    return [int(row) for row in smi("memory.used") if row.isdecimal()]


def smi(field: str) -> list[str]:
    """One field of `nvidia-smi`, for each GPU."""
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []
