"""Where a job's story is read: a file, a Slurm job, a SageMaker job, streams of CloudWatch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slipway.cluster import (
    HeadNode,
    JobReading,
    read_log_streams,
    read_slurm_job,
    read_training_job,
)
from slipway.core import Project, UsageError
from slipway.report.job.job_log import JobLog, read_job_log, take_reading

FORMS = "FILE, slurm:NUMBER, sagemaker:NAME, cloudwatch:GROUP or cloudwatch:GROUP:STREAMS"

_KINDS = ("slurm", "sagemaker", "cloudwatch")
_JOB_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}", re.ASCII)
"""CreateTrainingJob, TrainingJobName (API reference)."""
_GROUP = re.compile(r"[\w./#-]{1,512}", re.ASCII)
"""CreateLogGroup, logGroupName; the name of a stream has no ":" and no "*" (CreateLogStream)."""


@dataclass(frozen=True)
class JobPlaces:
    """Where jobs that are no files are asked for. `ssh`: the head node; `region`: "" for none."""

    project: Project
    ssh: str = ""
    region: str = ""


@dataclass(frozen=True)
class JobSource:
    """One job as it was named: `kind` is file, slurm, sagemaker or cloudwatch."""

    kind: str
    name: str
    streams: str = ""  # of CloudWatch: how their names begin

    def read(self, places: JobPlaces) -> JobLog:
        """What is known of the job by now.

        Raises SlipwayError where it cannot be read or holds no event of the launcher, UsageError
        for a job that is none.
        """
        if self.kind == "file":
            return read_job_log(Path(self.name))
        return take_reading(self._reading(places))

    def _reading(self, places: JobPlaces) -> JobReading:
        if self.kind == "slurm":
            return read_slurm_job(HeadNode(places.ssh), self.name, places.project)
        if not places.region:
            raise UsageError("--region is missing", cure="Give it, or set slipway.region.")
        if self.kind == "sagemaker":
            return read_training_job(self.name, places.region)
        return read_log_streams(self.name, self.streams, places.region)


def parse_job_source(text: str) -> JobSource:
    """A job as --job names it. A file that is there is one, whatever it is called.

    Raises UsageError for a name that no job of its kind can have.
    """
    kind, colon, name = text.partition(":")
    if not colon or kind not in _KINDS or Path(text).exists():
        return JobSource("file", text)
    streams = ""
    if kind == "cloudwatch":
        name, _, streams = name.partition(":")
    pattern = {"slurm": re.compile("[1-9][0-9]*"), "sagemaker": _JOB_NAME, "cloudwatch": _GROUP}
    if not pattern[kind].fullmatch(name) or re.search(r"[:*\x00-\x1f]", streams):
        raise UsageError(f"--job {text!r} names no job", cure=f"One of {FORMS} is needed.")
    return JobSource(kind, name, streams)
