"""SageMaker training jobs of an image: a request -> CreateTrainingJob, or code for an SDK.

In come an image of the matrix, the place that it was pushed to and what a person asks for; out come
documents. Only `training_jobs` talks to AWS, and only where it is told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.sagemaker.job_output import read_log_streams, read_training_job
    from slipway.cluster.sagemaker.job_task import JobChoice, write_training_job
    from slipway.cluster.sagemaker.training_jobs import (
        follow_logs,
        show_training_job,
        stop_training_job,
    )
    from slipway.cluster.sagemaker.training_request import TrainingOptions, role_arn, s3_uri

__all__ = [
    "JobChoice",
    "TrainingOptions",
    "follow_logs",
    "read_log_streams",
    "read_training_job",
    "role_arn",
    "s3_uri",
    "show_training_job",
    "stop_training_job",
    "write_training_job",
]

__getattr__ = lazy_face(
    __name__,
    {
        "job_task": "JobChoice write_training_job",
        "job_output": "read_log_streams read_training_job",
        "training_jobs": "follow_logs show_training_job stop_training_job",
        "training_request": "TrainingOptions role_arn s3_uri",
    },
)
