"""Reading along with a job: CloudWatch shows lines late, some hosts' later than others'."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from slipway.cluster import follow_logs
from slipway.cluster.sagemaker import training_jobs
from slipway.cluster.sagemaker.log_streams import LogLine

STEP_S = 10


class Job:
    """One that ends at a second; each line is shown some seconds after it was printed."""

    def __init__(self, lines: list[tuple[LogLine, int]], ends: int) -> None:
        self.lines, self.ends, self.now, self.readings = lines, ends, 0, 0

    def describe(self, client: Any, name: str) -> dict[str, Any]:
        del client, name
        if self.now < self.ends:
            return {"TrainingJobStatus": "InProgress"}
        ended = datetime.now(timezone.utc) - timedelta(seconds=self.now - self.ends)
        return {"TrainingJobStatus": "Failed", "TrainingEndTime": ended}

    def read(self, logs: Any, name: str, *, since: int) -> Iterator[LogLine]:
        del logs, name
        self.readings += 1
        shown = [line for line, late in self.lines if line.time_ms / 1000 + late <= self.now]
        yield from sorted(
            (line for line in shown if line.time_ms >= since), key=lambda line: line.time_ms
        )

    def sleep(self, seconds: float) -> None:
        assert seconds == training_jobs.POLL_S == STEP_S
        self.now += STEP_S


def follow(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_jobs, "connect_aws", lambda *_: None)
    monkeypatch.setattr(training_jobs, "describe_training_job", job.describe)
    monkeypatch.setattr(training_jobs, "job_lines", job.read)
    monkeypatch.setattr(time, "sleep", job.sleep)
    follow_logs("a-job", "eu-central-1", follow=True)


@pytest.mark.parametrize("seed", range(20))
def test_each_line_is_printed_once_however_late_it_is_shown(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random_ = random.Random(seed)
    lines = []
    for number in range(300):
        host, late = random_.choice([(1, 1), (2, random_.randrange(19))])
        stream, time_ms = f"a-job/algo-{host}-9", 1000 * random_.randrange(600)
        lines.append((LogLine(str(number), time_ms, stream, str(number)), late))
    follow(Job(lines, ends=600), monkeypatch)
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == sorted(f"{line.host} {line.text}" for line, _ in lines)


def test_a_job_that_ended_long_ago_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job([], ends=0)
    job.now = 3600
    follow(job, monkeypatch)
    assert job.readings == 1


def test_a_job_that_never_began_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job([], ends=0)
    monkeypatch.setattr(job, "describe", lambda *_: {"TrainingJobStatus": "Failed"})
    follow(job, monkeypatch)
    assert (job.readings, job.now) == (1, 0)
