"""Training jobs: asked for at AWS's control plane (moto), started by the launcher as asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest

from slipway.cluster import follow_logs, show_training_job, stop_training_job
from slipway.cluster.sagemaker import training_jobs
from slipway.cluster.sagemaker.log_streams import LOG_GROUP
from slipway.cluster.sagemaker.training_jobs import submit_training_job
from slipway.cluster.sagemaker.training_request import TrainingOptions, make_training_request
from slipway.core import Project, SlipwayError, UsageError
from slipway.report import WatchRequest, watch_work
from slipway.report.job import JobPage, JobPlaces, job_pages, parse_job_source
from tests.support.aws_control_plane import REGION, ControlPlane, control_plane
from tests.support.cluster_samples import LAUNCHER, image
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.cluster import Cluster, cluster
from tests.support.report_samples import BEGAN, job_lines

pytest_plugins = ["tests.support.launcher.storage"]

NOW = datetime(2026, 11, 28, 12, 30, 5, tzinfo=timezone.utc)
URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-slipway/local@sha256:" + "a" * 64
SCRIPT = "import sys, helper\nprint(helper.X, sys.argv[1:])\n"


@pytest.fixture
def one(tmp_path: Path, bucket: Bucket) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        node = made.nodes[0]
        node.env.update(bucket.env, PATH=f"{bucket.env['PATH']}:{node.env['PATH']}")
        yield made


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    with control_plane() as plane:
        monkeypatch.setenv("AWS_ENDPOINT_URL", plane.url)
        yield plane


def asked(folder: Path, bucket: str) -> Any:
    folder = folder / "code"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "helper.py").write_text("X = 5\n")
    options = TrainingOptions(
        instance="ml.m5.xlarge",
        nodes="1",
        words=("train.py", "--log", "a b", ""),
        role="arn:aws:iam::123456789012:role/Train",
        output=f"s3://{bucket}/out",
        source=str(folder),
        launch=("runner=python",),
    )
    return make_training_request(options, image("local-ds0.19.8"), URI, LAUNCHER, NOW)


def test_a_submitted_job_runs_its_script_with_its_words(
    plane: ControlPlane, tmp_path: Path, one: Cluster, bucket: Bucket
) -> None:
    """What moto kept of CreateTrainingJob is handed to the launcher as the service would."""
    made = asked(tmp_path, bucket.name)
    arn = submit_training_job(made, REGION)
    assert arn.endswith(f":training-job/{made.name}")
    job = boto3.client("sagemaker", region_name=REGION).describe_training_job(
        TrainingJobName=made.name
    )
    words = job["AlgorithmSpecification"]["ContainerArguments"]
    assert words[:2] == ["launch", "sagemaker"]
    values = {name: json.loads(text) for name, text in job["HyperParameters"].items()}
    one.nodes[0].hyperparameters(values)
    launch = one.start(0, words[1:])
    assert launch.end() == 0
    assert "[r0] 5 ['--log', 'a b', '']" in launch.lines


def logged(job: str, host: str, *messages: str) -> None:
    logs = boto3.client("logs", region_name=REGION)
    if not logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
        logs.create_log_group(logGroupName=LOG_GROUP)
    stream = f"{job}/{host}-1764333005"
    logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
    start = int(datetime.now(timezone.utc).timestamp() * 1000)
    logs.put_log_events(
        logGroupName=LOG_GROUP,
        logStreamName=stream,
        logEvents=[
            {"timestamp": start + number, "message": text} for number, text in enumerate(messages)
        ],
    )


def event(name: str, **fields: object) -> str:
    fields = {"t": 1764333005.5, "host": "algo-1", "node_rank": 0, "event": name, **fields}
    return f"launch: {json.dumps(fields)}"


@pytest.fixture
def job(plane: ControlPlane, tmp_path: Path) -> str:
    boto3.client("s3", region_name=REGION).create_bucket(Bucket="bucket")
    made = asked(tmp_path, "bucket")
    submit_training_job(made, REGION)
    plane.play(made.name, "InProgress", "Training")
    return str(made.name)


def test_status_has_the_cause_on_top_and_what_the_launcher_told(
    plane: ControlPlane, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(job, "algo-1", "hello", event("gate", nodes=2), "launch: {cut", event("failed", rank=3))
    logged(f"{job}-other", "algo-1", event("other"))
    plane.play(job, "Failed", "Failed", failure_reason="rank 3: \x1b[2Jout of memory")
    show_training_job(job, REGION, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{job}: Failed (Failed)"
    assert lines[1].startswith("cause: rank 3: ")
    assert "\x1b" not in lines[1]
    told = [line for line in lines if "algo-1" in line]
    assert [re.split(r"  +", line)[2:] for line in told] == [
        ["gate", "nodes 2"],
        ["failed", "rank 3"],
    ]
    show_training_job(job, REGION, as_json=True)
    state = json.loads(capsys.readouterr().out)
    assert (state["status"], [e["event"] for e in state["events"]]) == (
        "Failed",
        ["gate", "failed"],
    )


def page_of(source: str, folder: Path) -> JobPage:
    places = JobPlaces(Project(folder, folder / "state"), region=REGION)
    (page,) = job_pages(parse_job_source(source).read(places))
    return page


def test_a_report_of_a_training_job_has_its_queue_and_its_containers_start(
    plane: ControlPlane, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for 10 minutes before its instances were there, and those 1 minute before the sample;
    the same page by the names of group and streams has no queue: nobody tells it there."""
    told = f'"job_start": {int(BEGAN)}'
    own = [line.replace(told, '"job_start": null') for line in job_lines()]
    for node in (0, 1):
        lines = [
            line for line in own if (f'"node_rank": {node}' in line) or (line[0] == "[") > node
        ]
        logged(job, f"algo-{node + 1}", "pip is quiet", *lines, "launch: {cut", "\x1b[2Jodd")
    logged(f"{job}-other", "algo-1", *own)
    moments = {"creation_time": BEGAN - 660, "training_start_time": BEGAN - 60}
    plane.play(job, "Failed", "Failed", **{
        name: datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, at in moments.items()
    })  # fmt: skip
    page = page_of(f"sagemaker:{job}", tmp_path)
    stages = {stage.stage: stage.slowest for stage in page.stages}
    assert (page.queue, stages["queue"], stages["container"]) == (600, 600, 72)
    assert (page.nodes, page.world, page.unread, len(page.steps)) == (2, 4, 2, 2)
    assert page.ends[0][3] == "Hang on host-1 rank 3\nTraceback"
    streams = page_of(f"cloudwatch:{LOG_GROUP}:{job}/", tmp_path)
    assert (streams.queue, streams.nodes, streams.ends) == (None, 2, page.ends)
    watch_work(tmp_path, WatchRequest(f"sagemaker:{job}", region=REGION))
    seen = capsys.readouterr()
    assert "over" in seen.err
    assert "failed (77)" in seen.out


def test_a_report_of_what_has_told_nothing_says_what_to_look_at(
    plane: ControlPlane, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SlipwayError, match="has printed no event of the launcher yet"):
        page_of(f"sagemaker:{job}", tmp_path)
    with pytest.raises(UsageError, match="there is no training job 'nobody'"):
        page_of("sagemaker:nobody", tmp_path)
    with pytest.raises(SlipwayError, match="no line of /no/group"):
        page_of("cloudwatch:/no/group", tmp_path)
    watch_work(tmp_path, WatchRequest(f"sagemaker:{job}", region=REGION))
    assert "has printed no event" in capsys.readouterr().err


def test_logs_are_those_of_all_hosts_in_order_until_the_job_has_ended(
    plane: ControlPlane,
    job: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_jobs, "_SETTLE", timedelta(0))  # moto shows lines at once
    logged(job, "algo-1", "one", "two")
    logged(job, "algo-2", "three")
    plane.play(job, "Completed", "Completed")
    follow_logs(job, REGION, follow=True)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == ["algo-1 one", "algo-1 two", "algo-2 three"]
    assert lines.index("algo-1 one") < lines.index("algo-1 two")


def test_before_a_job_has_printed_anything_its_log_is_empty(
    plane: ControlPlane, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    follow_logs(job, REGION, follow=False)
    assert capsys.readouterr().out == ""


def test_a_job_is_stopped_once(plane: ControlPlane, job: str) -> None:
    stop_training_job(job, REGION)
    assert plane.job(job).training_job_status == "Stopping"
    plane.play(job, "Stopped", "Stopped")
    with pytest.raises(UsageError, match="has ended already: Stopped"):
        stop_training_job(job, REGION)
    assert plane.calls.count("StopTrainingJob") == 1


def test_a_job_that_is_not_there_is_said(plane: ControlPlane) -> None:
    with pytest.raises(UsageError, match="there is no training job 'nobody' in us-east-1"):
        show_training_job("nobody", REGION, as_json=False)


def test_without_the_bucket_no_job_is_asked_for(plane: ControlPlane, tmp_path: Path) -> None:
    made = asked(tmp_path, "no-such-bucket")
    with pytest.raises(SlipwayError, match="no-such-bucket"):
        submit_training_job(made, REGION)
    assert plane.calls == []
