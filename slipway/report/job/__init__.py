"""A job by what it told: where its start went, how its nodes and ranks fared, what ended it.

In comes a file, or what Slurm, SageMaker or CloudWatch have of a job; out comes a page's model for
each of its attempts. Only `job_sources` asks anybody, by the face of `slipway.cluster`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.report.job.job_log import read_job_log
    from slipway.report.job.job_page import JobPage, job_pages
    from slipway.report.job.job_sources import JobPlaces, JobSource, parse_job_source
    from slipway.report.job.job_stages import queue_lead, start_seconds

__all__ = [
    "JobPage",
    "JobPlaces",
    "JobSource",
    "job_pages",
    "parse_job_source",
    "queue_lead",
    "read_job_log",
    "start_seconds",
]

__getattr__ = lazy_face(
    __name__,
    {
        "job_log": "read_job_log",
        "job_page": "JobPage job_pages",
        "job_sources": "JobPlaces JobSource parse_job_source",
        "job_stages": "queue_lead start_seconds",
    },
)
