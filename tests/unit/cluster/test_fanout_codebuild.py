"""CodeBuild's documents: valid by botocore's model, with the rights that a build needs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slipway.cluster import CodeBuildOptions, run_codebuild_fanout
from slipway.cluster.aws_model import request_faults
from slipway.cluster.fanout.codebuild_documents import MOST_BUILDS, identified
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.core import UsageError
from tests.support.cluster_samples import image

ROLE = "arn:aws:iam::111122223333:role/path/builds"
OPTIONS = CodeBuildOptions(ROLE, "s3://bucket/a/b/", plan=True)
SHIP = ("--region", "us-west-2", "--target", "ecr", "--no-engine", "--base-from", "oci:a b")


def plan_of(count: int) -> FanoutPlan:
    return FanoutPlan(tuple(PlannedImage(f"image-{n}.ü", "base", "b") for n in range(count)), SHIP)


def documents(
    capsys: pytest.CaptureFixture[str], plan: FanoutPlan, options: CodeBuildOptions = OPTIONS
) -> Any:
    images = [image("pytorch-2.13-sagemaker-ds0.19.8"), image("local-ds0.19.8")]
    run_codebuild_fanout(Path(), plan, options, images, prefix="sagemaker-slipway", as_json=False)
    return json.loads(capsys.readouterr().out)


def test_the_documents_are_what_aws_takes(capsys: pytest.CaptureFixture[str]) -> None:
    made = documents(capsys, plan_of(3))
    for call in ("CreateProject", "UpdateProject"):
        assert request_faults("codebuild", call, made["project"]) == []
    (batch,) = made["batches"]
    assert [build["env"]["variables"] for build in batch["batch"]["build-list"]] == [
        {"IMAGE": f"image-{n}.ü"} for n in range(3)
    ]
    (command,) = batch["phases"]["build"]["commands"]
    assert command == (
        "./inv ship \"$IMAGE\" --region us-west-2 --target ecr --no-engine --base-from 'oci:a b'"
    )
    request = {"projectName": "slipway-fanout", "buildspecOverride": json.dumps(batch)}
    assert request_faults("codebuild", "StartBuildBatch", request) == []


def test_more_images_than_a_batch_takes_are_several_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = documents(capsys, plan_of(MOST_BUILDS + 1))
    assert [len(batch["batch"]["build-list"]) for batch in made["batches"]] == [MOST_BUILDS, 1]


def test_identifiers_are_words_and_differ() -> None:
    names = ("a-b", "a.b", "ü", "x" * 200)
    images = [PlannedImage(name, "base", "b") for name in names]
    identifiers = [identifier for identifier, _ in identified(images)]
    assert identifiers[:3] == ["i0_a_b", "i1_a_b", "i2__"]
    assert max(map(len, identifiers)) < 128


def test_the_role_may_pull_from_the_bases_and_push_to_our_own_repositories_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = documents(capsys, plan_of(1))
    assert made["trust"]["Statement"][0]["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "111122223333"}
    }
    by_sid = {row["Sid"]: row for row in made["permissions"]["Statement"]}
    assert by_sid["Bases"]["Resource"] == ["arn:aws:ecr:us-west-2:763104351884:repository/pytorch"]
    assert by_sid["Push"]["Resource"] == [
        "arn:aws:ecr:us-west-2:111122223333:repository/sagemaker-slipway/*"
    ]
    # Only the login, which ECR gives for the account, has no resource.
    assert [sid for sid, row in by_sid.items() if "*" in row["Resource"]] == ["Login"]
    actions = [action for row in by_sid.values() for action in row["Action"]]
    assert not [action for action in actions if "*" in action or "Delete" in action]


def test_docker_has_privileges_only_where_there_is_an_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_engine = FanoutPlan(plan_of(1).images, SHIP[:4])
    assert documents(capsys, with_engine)["project"]["environment"]["privilegedMode"] is True
    assert documents(capsys, plan_of(1))["project"]["environment"]["privilegedMode"] is False


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (CodeBuildOptions("", "s3://bucket"), "--role ''"),
        (CodeBuildOptions("arn:aws:iam::1:role/x", "s3://bucket"), "the ARN of an IAM role"),
        (CodeBuildOptions(ROLE, "bucket"), "--source 'bucket'"),
        (CodeBuildOptions(ROLE, "s3://Bucket"), "--source"),
        (CodeBuildOptions(ROLE, "s3://bucket", "LARGE_CLUSTER"), "--compute 'LARGE_CLUSTER'"),
    ],
)
def test_what_codebuild_would_refuse_is_said(options: CodeBuildOptions, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run_codebuild_fanout(Path(), plan_of(1), options, [], prefix="x", as_json=False)
