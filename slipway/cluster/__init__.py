"""Slurm jobs of an image: a request -> values -> an sbatch script. It starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.script import write_script
    from slipway.cluster.slurm_job import ScriptRequest

__all__ = ["ScriptRequest", "write_script"]

__getattr__ = lazy_face(
    __name__,
    {
        "script": "write_script",
        "slurm_job": "ScriptRequest",
    },
)
