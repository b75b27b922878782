"""Names and number of checkpoints on a disk. Needs nothing but Python.

The launcher takes a checkpoint for complete by the file that is written last: DCP's `.metadata`,
DeepSpeed's `latest`, `trainer_state.json` (entrypoints/launcher/checkpoints.py).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

#: A rank's part of DeepSpeed's optimizer state (deepspeed/runtime/engine.py, _get_zero_ckpt_name).
_ZERO_PART = re.compile(r"(bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
#: What a universal checkpoint has instead (deepspeed/checkpoint/ds_to_universal.py).
_UNIVERSAL = "zero"


class ResumeError(SystemExit):
    """A checkpoint that this job cannot go on from: one line, no traceback."""


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 without one."""
    number = re.search(r"(\d+)$", path.name)
    return int(number[1]) if number else -1


def old(directory: Path, pattern: str, keep: int) -> list[Path]:
    """All checkpoints but the newest `keep`."""
    return sorted(directory.glob(pattern), key=step_of)[:-keep]


def remove(checkpoint: Path, last_file: str) -> None:
    """Delete one; first the file that makes it complete, so that no half of it looks whole."""
    (checkpoint / last_file).unlink(missing_ok=True)
    # On a shared file system another node's rank may be deleting the same.
    shutil.rmtree(checkpoint, ignore_errors=True)


def is_universal(checkpoint: Path) -> bool:
    """Whether DeepSpeed can load it at any number of ranks."""
    return (checkpoint / _UNIVERSAL).is_dir()


def check_zero_ranks(checkpoint: Path, world: int) -> None:
    """ResumeError unless a ZeRO checkpoint was written by as many ranks as there are now.

    On a local disk only this node's parts are there, unless the launcher brought them all.
    """
    if is_universal(checkpoint):
        return
    parts = [match for path in checkpoint.iterdir() if (match := _ZERO_PART.fullmatch(path.name))]
    ranks = max((int(match[2]) + 1 for match in parts), default=0)
    if ranks != world:
        raise ResumeError(
            f"{checkpoint} has the ZeRO state of {ranks} ranks, and there are {world}. Convert it: "
            f"python -m deepspeed.checkpoint.ds_to_universal --input_folder {checkpoint} "
            f"--output_folder {checkpoint}-universal; then --resume-from {checkpoint}-universal"
        )
