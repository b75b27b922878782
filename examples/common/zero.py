"""DeepSpeed's configuration and its checkpoints. Needs nothing but Python.

A ZeRO checkpoint has one part per rank, and loads at that number of ranks only. A universal
checkpoint, made from it by DeepSpeed's own tool, loads at any number.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from common.errors import ExampleError

#: A rank's part (deepspeed/runtime/engine.py, _get_zero_ckpt_name).
_PART = re.compile(r"(bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
UNIVERSAL = "-universal"


def read_config(path: Path) -> dict[str, Any]:
    """DeepSpeed's JSON; ExampleError when it is none."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExampleError(f"--zero-config {path}: {error}") from error
    return config


def source(checkpoint: Path, world: int, config: dict[str, Any]) -> Path:
    """The directory to load at `world` ranks: the checkpoint, or its universal twin beside it.

    For the twin the configuration is changed. ExampleError says how to make it.
    """
    parts = [match for path in checkpoint.glob("*.pt") if (match := _PART.fullmatch(path.name))]
    ranks = max((int(match[2]) + 1 for match in parts), default=0)
    if not ranks:
        raise ExampleError(f"{checkpoint} is no ZeRO checkpoint: was it written by other means?")
    if ranks == world:
        return checkpoint
    twin = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    if not twin.is_dir():
        raise ExampleError(
            f"{checkpoint} has the ZeRO state of {ranks} ranks, and this job has {world}. Run "
            f"`python -m deepspeed.checkpoint.ds_to_universal --input_folder {checkpoint} "
            f"--output_folder {twin}` once, and start again"
        )
    config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}
    return twin


def be_quiet() -> None:
    """Leave out warnings of DeepSpeed's own use of torch, at each step or barrier of every rank."""
    deprecated = r".*torch\.distributed\..* is deprecated"  # by torch 2.13
    warnings.filterwarnings("ignore", message=deprecated, category=FutureWarning)
    warnings.filterwarnings(
        "ignore", message=r"barrier\(\): using the device", category=UserWarning
    )
