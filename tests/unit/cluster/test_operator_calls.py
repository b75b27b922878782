"""What no other unit test asks of AWS is asked here, so that a whole run makes every call.

A run of tests/unit compares what was called with the policy of whoever runs Slipway, both ways
(tests/support/aws_calls.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from slipway.cluster import show_training_job, stop_training_job
from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.fanout.codebuild_batches import (
    put_project,
    start_batch,
    stop_batch,
)
from slipway.cluster.fanout.codebuild_documents import (
    CodeBuildOptions,
    batch_buildspec,
    check_options,
    project_request,
)
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.hyperpod import cluster_change
from slipway.cluster.hyperpod.cluster_change import bring_up_cluster, delete_cluster
from slipway.cluster.hyperpod.cluster_status import open_shell, show_cluster
from slipway.core import Credentials
from slipway.registry import connect_aws, credentials_for
from slipway.registry.ecr.ecr_client import connect_ecr
from slipway.registry.ecr.ecr_repository import ensure_repository, remove_ecr_images
from tests.support.aws_calls import PLUGIN, AwsCalls
from tests.support.aws_control_plane import (
    ACCOUNT,
    REGION,
    ControlPlane,
    control_plane_in_process,
    free_addresses,
)
from tests.support.aws_door import aws_door
from tests.support.codebuild import codebuild
from tests.support.operator_actions import actions_of, operator_actions

ROOT = Path(__file__).parents[3]
ROLE = f"arn:aws:iam::{ACCOUNT}:role/Any"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane_in_process() as plane:
        yield plane


@pytest.fixture
def calls(pytestconfig: pytest.Config) -> AwsCalls:
    """Of this run."""
    calls = pytestconfig.pluginmanager.get_plugin(PLUGIN)
    assert isinstance(calls, AwsCalls)
    return calls


def nat_gateway() -> str:
    """The one that is there."""
    gateways = boto3.client("ec2", region_name=REGION).describe_nat_gateways()["NatGateways"]
    (there,) = [each["NatGatewayId"] for each in gateways if each["State"] == "available"]
    return str(there)


def take_way_out() -> None:
    """Somebody removes the NAT gateway: the route to it stays, and leads nowhere."""
    boto3.client("ec2", region_name=REGION).delete_nat_gateway(NatGatewayId=nat_gateway())
    free_addresses()


def ways_out() -> list[str | None]:
    """The NAT gateways that routes lead to."""
    tables = boto3.client("ec2", region_name=REGION).describe_route_tables()["RouteTables"]
    return [route.get("NatGatewayId") for table in tables for route in table["Routes"]]


def test_a_cluster_from_its_network_to_its_end(
    plane: ControlPlane, calls: AwsCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_change, "POLL_S", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "session-manager-plugin").write_text("#!/bin/sh\n")
    (tmp_path / "session-manager-plugin").chmod(0o755)
    started: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *words: started.append(words))
    file = tmp_path / "train.yaml"
    file.write_text(
        f'name: train\nregion: {REGION}\naccount: "{ACCOUNT}"\nzone: use1-az4\n'
        "controller: ml.c5.xlarge\ngroups: {workers: {instance: ml.g5.48xlarge, count: 1}}\n"
    )
    bring_up_cluster(ROOT, str(file), yes=True, dry_run=False)
    take_way_out()
    bring_up_cluster(ROOT, str(file), yes=True, dry_run=False)
    assert nat_gateway() in ways_out()
    show_cluster(str(file), as_json=False)
    open_shell(str(file), "controller", ssh_config=False)
    delete_cluster(ROOT, str(file), yes=True, keep_storage=False)
    assert len(started) == len(plane.hyperpod.sessions) == 1
    assert plane.hyperpod.clusters == plane.hyperpod.systems == {}
    assert {"ec2:DeleteVpc", "ec2:ReplaceRoute", "fsx:DeleteFileSystem", "ssm:StartSession"} <= {
        *calls.made
    }


def test_a_training_job_is_looked_at_and_stopped(plane: ControlPlane, calls: AwsCalls) -> None:
    boto3.client("sagemaker", region_name=REGION).create_training_job(
        TrainingJobName="job",
        AlgorithmSpecification={"TrainingImage": "x", "TrainingInputMode": "File"},
        RoleArn=ROLE,
        OutputDataConfig={"S3OutputPath": "s3://bucket/out"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    plane.play("job", "InProgress", "Training")
    show_training_job("job", REGION, as_json=False)
    stop_training_job("job", REGION)
    assert plane.job("job").training_job_status == "Stopping"
    assert {"logs:FilterLogEvents", "sagemaker:StopTrainingJob"} <= {*calls.made}


def test_a_batch_of_builds_is_started_and_stopped(
    calls: AwsCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = FanoutPlan((PlannedImage("one", "base", "b"),), ("--region", REGION))
    place = check_options(plan, CodeBuildOptions(ROLE, "s3://bucket"))
    with codebuild(tmp_path, "", {}) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.url)
        state.waits = {"one"}
        client = connect_aws("codebuild", REGION)
        for _ in range(2):
            put_project(client, project_request(place, "key.zip", engine=False))
        identifier = start_batch(client, batch_buildspec(plan.images, plan.ship))
        state.batches[identifier]["complete"] = False
        stop_batch(identifier, REGION)
    assert state.calls == [
        *("BatchGetProjects", "CreateProject", "BatchGetProjects", "UpdateProject"),
        *("StartBuildBatch", "BatchGetBuildBatches", "StopBuildBatch"),
    ]
    assert {f"codebuild:{call}" for call in state.calls} <= {*calls.made}


def test_images_leave_a_repository(calls: AwsCalls) -> None:
    with mock_aws():
        client = connect_ecr(REGION)
        ensure_repository(client, "team/image")
        remove_ecr_images(client, "team/image", ["sha256:" + "a" * 64])  # gone already is fine
    assert "ecr:BatchDeleteImage" in calls.made


def test_the_public_registry_is_logged_in_to(
    calls: AwsCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto has no such API: the answer has the form of the API reference."""
    data = {"authorizationToken": "QVdTOnNlY3JldA==", "expiresAt": 4102444800}
    answers = {"GetAuthorizationToken": (200, {"authorizationData": data})}
    handler = aws_door(lambda _service, call, _body: answers[call], "")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR_PUBLIC", url)
        assert credentials_for()("public.ecr.aws") == Credentials("AWS", "secret")
        server.shutdown()
        thread.join()
    assert "ecr-public:GetAuthorizationToken" in calls.made


# --- the record itself ---


def test_a_call_that_the_policy_does_not_allow_fails_its_test_by_name(calls: AwsCalls) -> None:
    """The class alone: the calls of this run are left as they are."""
    fresh = AwsCalls(calls.folder)
    with pytest.raises(pytest.fail.Exception, match="ec2:RunInstances needs ec2:RunInstances"):
        fresh.hear("ec2:RunInstances")
    fresh.hear("s3:ListObjectsV2")
    assert "s3:ListBucket" not in fresh.never_called()
    assert "ec2:CreateVpc" in fresh.never_called()


def test_only_clients_of_the_code_are_heard(calls: AwsCalls) -> None:
    before = {**calls.made}
    with mock_aws():
        boto3.client("ec2", region_name=REGION).describe_regions()
        boto3.session.Session().client("ec2", region_name=REGION).describe_regions()
        assert calls.made == before
        AwsAccount(REGION).call("ec2", "DescribeVpcs")
    assert "ec2:DescribeVpcs" in calls.made


MADE = """\
def test_made(pytestconfig):
    calls = pytestconfig.pluginmanager.get_plugin("aws-calls")
"""
CONFTEST = """\
from pathlib import Path
from tests.support.aws_calls import record_calls
def pytest_configure(config):
    record_calls(config, Path(__file__).parent)
"""
FORBIDDEN = """\
import threading
from slipway.registry import connect_aws
def test_thread(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    client = connect_aws("ec2", "us-east-1")
    def ask():
        try:
            client.describe_regions()
        except BaseException:
            pass
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
"""


def suite(folder: Path, *left_out: str, words: tuple[str, ...] = (".",)) -> tuple[int, str]:
    """A run of a suite that makes all calls but those whose actions are left out."""
    services = sorted(operator_actions() - {*left_out})
    made = f"    calls.made = dict.fromkeys({calls_for(services)!r}, 'x')\n"
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_made.py").write_text(MADE + made)
    (folder / "test_other.py").write_text("def test_other():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout


def calls_for(actions: list[str]) -> list[str]:
    """A call for each action, by the table that says which actions a call needs."""
    others = {
        "servicequotas": "service-quotas",
        "s3:GetBucketPublicAccessBlock": "s3:GetPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock": "s3:PutPublicAccessBlock",
    }
    calls = []
    for action in actions:
        service, _, name = action.partition(":")
        call = others.get(action, f"{others.get(service, service)}:{name}")
        calls.append("s3:ListObjectsV2" if action == "s3:ListBucket" else call)
    return [call for call in calls if actions_of(call) <= operator_actions()]


def test_a_whole_run_names_what_nobody_called_and_a_part_compares_nothing(tmp_path: Path) -> None:
    missing = "the operator's policy allows ec2:DeleteVpc, and no test needs it"
    code, told = suite(tmp_path, "ec2:DeleteVpc")
    assert (code, missing in told) == (1, True), told
    for words in (("test_made.py",), (".", "-k", "made"), (".", "--collect-only")):
        code, told = suite(tmp_path, "ec2:DeleteVpc", words=words)
        assert (code, missing in told) == (0, False), told
        # Where nothing was called there is nothing to say.
        said = "this was a part of the unit tests" in told
        assert said == ("--collect-only" not in words), told
    (tmp_path / "test_thread.py").write_text(FORBIDDEN)
    code, told = suite(tmp_path)
    assert code == 1
    assert "ec2:DescribeRegions needs ec2:DescribeRegions" in told
    assert "not compared with the policy: tests failed" in told
