"""The edge to SageMaker: a job is asked for, looked at, read along, stopped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from slipway.cluster.aws_model import check_parameters
from slipway.cluster.launcher_events import EVENT_MARK, LauncherEvent, parse_event
from slipway.cluster.sagemaker.log_streams import job_lines
from slipway.cluster.sagemaker.source_archive import write_source_archive
from slipway.cluster.sagemaker.training_request import TrainingRequest
from slipway.core import SlipwayError, UsageError, human_bytes, print_json, printable, say
from slipway.registry import aws_errors, connect_aws

ENDED = ("Completed", "Failed", "Stopped")
#: The API's own rate for describing a job is low, and its words change by the minute.
POLL_S = 10.0

_LAST_EVENTS = 12
#: CloudWatch shows lines some seconds after they were printed, and not those of all hosts in order.
_LATE_MS = 120_000
_SETTLE = timedelta(seconds=20)


@dataclass(frozen=True)
class TrainingJobState:
    """What AWS and the launcher say of a job. `cause` is why it failed."""

    name: str
    status: str
    step: str
    cause: str
    transitions: tuple[tuple[str, str, str], ...]  # when, step, AWS's words
    events: tuple[LauncherEvent, ...]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "status": self.status,
            "step": self.step,
            "cause": self.cause or None,
            "transitions": [
                dict(zip(("time", "step", "message"), row, strict=True)) for row in self.transitions
            ],
            "events": [
                {
                    "time": datetime.fromtimestamp(e.time).isoformat(),
                    "host": e.host,
                    "event": e.event,
                    "text": e.text,
                }
                for e in self.events
            ],
        }


def submit_training_job(request: TrainingRequest, region: str) -> str:
    """Put the code where the job looks for it, and ask for the job; its ARN.

    Raises SlipwayError. Nothing is asked for where the code could not be put there.
    """
    bucket, _, key = request.source_uri.removeprefix("s3://").partition("/")
    with tempfile.TemporaryFile(prefix="slipway-source-") as archive:
        count = write_source_archive(request.source, archive)
        size = archive.tell()
        say(f"code: {count} files, {human_bytes(size)} -> {request.source_uri}")
        archive.seek(0)
        storage = connect_aws("s3", region)
        with aws_errors("s3:PutObject", f"s3://{bucket}"):
            storage.upload_fileobj(archive, bucket, key)
    client = connect_aws("sagemaker", region)
    with aws_errors("sagemaker:CreateTrainingJob", request.name):
        answer = client.create_training_job(**request.parameters)
    return str(answer["TrainingJobArn"])


def inspect_training_job(name: str, region: str) -> TrainingJobState:
    """A job as it is now. Raises SlipwayError where there is none."""
    client = connect_aws("sagemaker", region)
    job = describe_training_job(client, name)
    transitions = tuple(
        (
            row["StartTime"].isoformat(timespec="seconds"),
            row["Status"],
            printable(row.get("StatusMessage", "")),
        )
        for row in job.get("SecondaryStatusTransitions", ())
    )
    logs = connect_aws("logs", region)
    lines = job_lines(logs, name, pattern=f'"{EVENT_MARK}"')
    events = tuple(
        event for line in lines if (event := parse_event(line.text, line.host)) is not None
    )
    return TrainingJobState(
        name,
        job["TrainingJobStatus"],
        job["SecondaryStatus"],
        printable(job.get("FailureReason", "")),
        transitions,
        events[-_LAST_EVENTS:],
    )


def show_training_job(name: str, region: str, *, as_json: bool) -> None:
    """Print a job: why it failed on top, then AWS's steps, then what the launcher told last."""
    state = inspect_training_job(name, region)
    if as_json:
        print_json(state.as_json())
        return
    print(f"{state.name}: {state.status} ({state.step})")
    if state.cause:
        print(f"cause: {state.cause}")
    for row in state.transitions:
        print("  ".join(row).rstrip())
    if state.events:
        print("the launcher:")
    for event in state.events:
        moment = datetime.fromtimestamp(event.time)
        print(f"{moment:%H:%M:%S}  {event.host}  {event.event}  {event.text}".rstrip())


def follow_logs(name: str, region: str, *, follow: bool) -> None:
    """Print what all hosts have printed, with their names; with `follow`, until the job ends."""
    client = connect_aws("sagemaker", region)
    logs = connect_aws("logs", region)
    printed: set[str] = set()
    newest = 0
    while True:
        state = describe_training_job(client, name)
        for line in job_lines(logs, name, since=max(0, newest - _LATE_MS)):
            if line.identifier in printed:
                continue
            printed.add(line.identifier)
            newest = max(newest, line.time_ms)
            print(f"{line.host} {printable(line.text)}", flush=True)
        if not follow or _is_over(state):
            return
        time.sleep(POLL_S)


def _is_over(state: Mapping[str, Any]) -> bool:
    """Whether a job has ended, and so long ago that its last lines are in CloudWatch."""
    if state["TrainingJobStatus"] not in ENDED:
        return False
    ended = state.get("TrainingEndTime")  # one that never began has none, and printed nothing
    return ended is None or datetime.now(timezone.utc) - ended > _SETTLE


def stop_training_job(name: str, region: str) -> None:
    """Have SageMaker send SIGTERM to every container: they have 120 s to save.

    Raises UsageError for a job that has ended.
    """
    client = connect_aws("sagemaker", region)
    status = describe_training_job(client, name)["TrainingJobStatus"]
    if status in ENDED:
        raise UsageError(f"{name} has ended already: {status}")
    with aws_errors("sagemaker:StopTrainingJob", name):
        client.stop_training_job(TrainingJobName=name)
    say(
        f"{name} is told to stop: the launcher passes SIGTERM to every rank, uploads what they "
        "save, and has 120 s for it"
    )


def describe_training_job(client: Any, name: str) -> Any:
    """AWS's description of a job. Raises UsageError for one that is not there."""
    check_parameters("sagemaker", "DescribeTrainingJob", TrainingJobName=name)
    try:
        with aws_errors("sagemaker:DescribeTrainingJob", name):
            return client.describe_training_job(TrainingJobName=name)
    except SlipwayError as error:
        # A job that is not there is a ValidationException (API reference, DescribeTrainingJob).
        if "not found" in str(error) or "Could not find" in str(error):
            region = client.meta.region_name
            raise UsageError(
                f"there is no training job {name!r} in {region}",
                cure=f"`aws sagemaker list-training-jobs --region {region}` lists those there are.",
            ) from error
        raise
