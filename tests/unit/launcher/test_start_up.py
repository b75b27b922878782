"""The event that tells where a node's start went: each stage once, also of a start that fails."""

from __future__ import annotations

import json

import pytest

from launcher.events import START_UP_FORMAT, StartUp
from slipway.report.job.job_log import START_UP_FORMATS
from slipway.report.job.job_stages import STAGES


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    lines = capsys.readouterr().err.splitlines()
    return [json.loads(line.removeprefix("launch: ")) for line in lines]


def test_stages_are_told_once_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    start = StartUp(job="j", attempt=0, nodes=1)
    with start.stage("gate"):
        pass
    with pytest.raises(ValueError, match="no disk"), start.stage("prefetch"):
        raise ValueError("no disk")
    start.tell()
    start.tell()
    (event,) = told(capsys)
    assert event["event"] == "start-up"
    stages = event["stages"]
    assert isinstance(stages, dict)
    assert list(stages) == ["gate", "prefetch"]
    assert all(seconds >= 0 for seconds in stages.values())
    assert float(str(event["began"])) <= float(str(event["t"]))


def test_the_report_reads_what_this_launcher_writes() -> None:
    from pathlib import Path

    from launcher import node_job

    source = Path(node_job.__file__).read_text()
    named = {part.partition('"')[0] for part in source.split('stage("')[1:]}
    assert named
    assert named <= set(STAGES)
    assert START_UP_FORMAT in START_UP_FORMATS
