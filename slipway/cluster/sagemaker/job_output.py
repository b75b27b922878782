"""What a training job has told so far, for its report: SageMaker's times, and its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slipway.cluster.job_reading import JobNotBegunError, JobReading
from slipway.cluster.launcher_events import EVENT_MARK
from slipway.cluster.sagemaker.log_streams import LOG_GROUP, LogLine, stream_lines
from slipway.cluster.sagemaker.training_jobs import describe_training_job
from slipway.registry import connect_aws

#: The launcher's events, and the ranks' lines of steps: all that a report reads of a log.
_PATTERNS = (f'"{EVENT_MARK}"', "step")

#: Before one of another status a job has no instances yet, or they are being prepared
#: (API reference, SecondaryStatusTransition: Starting, Pending; the two others are older words).
_QUEUED = ("Pending", "Starting", "LaunchingMLInstances", "PreparingTrainingStack")


def read_training_job(name: str, region: str) -> JobReading:
    """A training job, whether it runs or has ended. Raises JobNotBegunError, and
    UsageError for one that is none."""
    job = describe_training_job(connect_aws("sagemaker", region), name)
    source = f"SageMaker training job {name} in {region}: {LOG_GROUP}"
    lines = list(_lines(region, LOG_GROUP, f"{name}/"))
    if not lines:
        raise JobNotBegunError(
            f"{name} ({job['TrainingJobStatus']}) has printed no event of the launcher yet",
            cure=f"`./inv sagemaker.status {name} --region {region}` tells how far it is.",
        )
    return JobReading(
        name,
        source,
        lines=lines,
        submitted=job["CreationTime"].timestamp(),
        started=_started(job),
    )


def _started(job: Mapping[str, Any]) -> float:
    """When its instances were there: from then on it is paid for, images and data are fetched."""
    if "TrainingStartTime" in job:
        return float(job["TrainingStartTime"].timestamp())
    moments = [
        row["StartTime"].timestamp()
        for row in job.get("SecondaryStatusTransitions", ())
        if row["Status"] not in _QUEUED
    ]
    return min(moments, default=0.0)


def read_log_streams(group: str, prefix: str, region: str) -> JobReading:
    """Any streams of CloudWatch that launchers have written to; nobody tells a queue.

    Raises JobNotBegunError where there is no event of the launcher in them.
    """
    lines = list(_lines(region, group, prefix))
    where = f"{group}: {prefix}..." if prefix else group
    if not lines:
        raise JobNotBegunError(
            f"no line of {where} in {region} has an event of the launcher",
            cure=f"`aws logs describe-log-groups --region {region}` lists the groups there are.",
        )
    return JobReading(prefix or group, f"CloudWatch in {region}: {where}", lines=lines)


def _lines(region: str, group: str, prefix: str) -> Iterator[bytes]:
    logs = connect_aws("logs", region)
    known: dict[str, LogLine] = {}
    for pattern in _PATTERNS:
        for line in stream_lines(logs, group, prefix, pattern=pattern):
            known.setdefault(line.identifier, line)
    for line in sorted(known.values(), key=lambda line: line.time_ms):
        yield f"{line.host} {line.text}\n".encode(errors="replace")
