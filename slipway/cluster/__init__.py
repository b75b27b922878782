"""Jobs of an image: sbatch scripts for Slurm, training jobs on SageMaker.

A request becomes checked values, and these a script or a document. Only SageMaker jobs are started
from here, and only where that is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.sagemaker import (
        JobChoice,
        TrainingOptions,
        follow_logs,
        show_training_job,
        stop_training_job,
        write_training_job,
    )
    from slipway.cluster.script import write_script
    from slipway.cluster.slurm_job import ScriptRequest
    from slipway.cluster.sqsh_file import newest_sqsh

__all__ = [
    "JobChoice",
    "ScriptRequest",
    "TrainingOptions",
    "follow_logs",
    "newest_sqsh",
    "show_training_job",
    "stop_training_job",
    "write_script",
    "write_training_job",
]

__getattr__ = lazy_face(
    __name__,
    {
        "sagemaker": (
            "JobChoice TrainingOptions follow_logs show_training_job stop_training_job "
            "write_training_job"
        ),
        "script": "write_script",
        "slurm_job": "ScriptRequest",
        "sqsh_file": "newest_sqsh",
    },
)
