"""Lines of CloudWatch's logs, by group and the beginning of their streams' names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slipway.registry import aws_errors, tolerate

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
"""Where SageMaker keeps what jobs print; each host has a stream JOB/algo-N-TIME."""


@dataclass(frozen=True)
class LogLine:
    """One line. `identifier` is CloudWatch's, `time_ms` in milliseconds since 1970."""

    identifier: str
    time_ms: int
    stream: str
    text: str

    @property
    def host(self) -> str:
        """By SageMaker's names of streams, JOB/HOST-TIME; of another one its last part."""
        return re.sub(r"-\d+$", "", self.stream.rpartition("/")[2])


def stream_lines(
    logs: Any, group: str, prefix: str, *, since: int = 0, pattern: str = ""
) -> Iterator[LogLine]:
    """Lines of all streams whose names begin with `prefix`, in order of time.

    Nothing where there is no such group. `pattern` is CloudWatch's filter pattern. Raises
    SlipwayError where AWS refuses.
    """
    words: dict[str, Any] = {"logGroupName": group, "startTime": since}
    if prefix:
        words["logStreamNamePrefix"] = prefix
    if pattern:
        words["filterPattern"] = pattern
    lines = []
    # No such group: nothing of this account and region has printed anything yet.
    with aws_errors("logs:FilterLogEvents", group), tolerate("ResourceNotFoundException"):
        for page in logs.get_paginator("filter_log_events").paginate(**words):
            lines += [
                LogLine(
                    event["eventId"],
                    event["timestamp"],
                    event["logStreamName"],
                    event["message"],
                )
                for event in page["events"]
                if event["logStreamName"].startswith(prefix)
            ]
    yield from sorted(lines, key=lambda line: line.time_ms)


def job_lines(logs: Any, job: str, *, since: int = 0, pattern: str = "") -> Iterator[LogLine]:
    """What the hosts of a training job have printed; nothing before the first has begun."""
    yield from stream_lines(logs, LOG_GROUP, f"{job}/", since=since, pattern=pattern)
