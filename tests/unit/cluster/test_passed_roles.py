"""Each role that a call of ours gives to a service may be given, and to that service alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from slipway.cluster.documents import ClusterParts, make_cluster_request, make_role_request
from slipway.cluster.documents.cluster_file import ClusterFile, read_cluster_file
from slipway.cluster.documents.operator_policy import operator_permissions
from slipway.cluster.documents.permissions import Permission
from slipway.cluster.fanout.codebuild_documents import (
    CodeBuildOptions,
    check_options,
    project_request,
)
from slipway.cluster.fanout.fanout_plan import FanoutPlan
from slipway.cluster.sagemaker.training_request import TrainingOptions, make_training_request
from slipway.cluster.serving import EndpointOptions
from slipway.cluster.serving.endpoint_documents import make_endpoint_documents
from slipway.cluster.serving.model_kind import ModelKind
from tests.support.cluster_samples import SMALL_CLUSTER, image
from tests.unit.cluster.test_operator_policy import needed_calls, service_model

ROOT = Path(__file__).parents[3]
ACCOUNT = "arn:aws:iam::111122223333:role/"
JOBS, ENDPOINTS, BUILDS = (f"{ACCOUNT}{name}" for name in ("service-role/Sm-1", "Serve", "x/Build"))
NAMED = f"roles: {{jobs: {JOBS}, endpoints: {ENDPOINTS}, builds: {BUILDS}}}\n"
#: Inputs with roles that no call of ours fills in.
NEVER_GIVEN = {
    "codebuild:StartBuildBatch": {"serviceRoleOverride", "buildBatchConfigOverride.serviceRole"},
    "sagemaker:CreateEndpointConfig": {"ExecutionRoleArn"},
    "sagemaker:CreateCluster": {"RestrictedInstanceGroups.ExecutionRole"},
    "sagemaker:UpdateCluster": {"RestrictedInstanceGroups.ExecutionRole"},
}
_ROLE_MEMBER = re.compile(r"(execution|service)?role(arn|override)?", re.IGNORECASE)


def cluster_of(tmp_path: Path, more: str = "") -> ClusterFile:
    (tmp_path / "cluster.yaml").write_text(SMALL_CLUSTER + more)
    return read_cluster_file(tmp_path / "cluster.yaml")


def requests(cluster: ClusterFile, roles: tuple[str, str, str]) -> dict[str, dict[str, Any]]:
    """What our code sends, for each call that gives a role."""
    jobs, endpoints, builds = roles
    source = Path(cluster.path).with_name("code")
    source.mkdir(exist_ok=True)
    (source / "train.py").touch()
    training = TrainingOptions(
        instance="ml.p5.48xlarge",
        nodes="2",
        words=("train.py",),
        role=jobs,
        output="s3://bucket/out",
        source=str(source),
    )
    job = make_training_request(
        training,
        image("pytorch-2.13-sagemaker-ds0.19.8"),
        "111122223333.dkr.ecr.us-west-2.amazonaws.com/x:1",
        ROOT / "entrypoints",
        datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    serving = EndpointOptions(model="s3://models/llama/", role=endpoints, instance="ml.g5.2xlarge")
    kind = ModelKind("llama", 32, 8, encoder_decoder=False, own_code=False)
    endpoint = make_endpoint_documents(serving, kind, "image:1", "ml.g5.2xlarge", 1)
    plan = FanoutPlan((), ("--region", "us-west-2"))
    place = check_options(plan, CodeBuildOptions(builds, "s3://bucket"))
    project = project_request(place, "key.zip", engine=False)
    nodes = make_cluster_request(cluster, ClusterParts.unmade(cluster)).parameters
    return {
        "sagemaker:CreateCluster": nodes,
        "sagemaker:UpdateCluster": {"InstanceGroups": nodes["InstanceGroups"]},
        "sagemaker:CreateTrainingJob": dict(job.parameters),
        "sagemaker:CreateModel": endpoint.model,
        "sagemaker:CreateEndpointConfig": endpoint.config,
        "codebuild:CreateProject": project,
        "codebuild:UpdateProject": project,
        "codebuild:StartBuildBatch": {"projectName": "slipway-fanout", "buildspecOverride": ""},
    }


def role_members(shape: Any, path: str = "", deep: int = 5) -> Iterator[str]:
    """Where an input of botocore's model takes a role, as NAME.NAME."""
    if shape.type_name == "structure" and deep:
        for name, member in shape.members.items():
            yield from role_members(member, f"{path}.{name}".strip("."), deep - 1)
    elif shape.type_name == "list":
        yield from role_members(shape.member, path, deep)
    elif shape.type_name == "string" and _ROLE_MEMBER.fullmatch(path.rpartition(".")[2]):
        yield path


def roles_at(value: Any, path: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from roles_at(item, path)
    elif not path:
        yield str(value)
    elif isinstance(value, dict) and path[0] in value:
        yield from roles_at(value[path[0]], path[1:])


def test_every_call_that_takes_a_role_is_looked_at(tmp_path: Path) -> None:
    """Of all calls that are in the code: what a new one gives has to be in the table above."""
    sent = requests(cluster_of(tmp_path), (JOBS, ENDPOINTS, BUILDS))
    missing = []
    for call in needed_calls():
        service, _, operation = call.partition(":")
        shape = service_model(service).operation_model(operation).input_shape
        for path in role_members(shape) if shape else ():
            if service == "iam" or path in NEVER_GIVEN.get(call, ()):
                continue
            if not list(roles_at(sent.get(call, {}), path.split("."))):
                missing.append(f"{call} {path}")
    assert missing == []


@pytest.mark.parametrize("named", [True, False])
def test_every_role_that_is_given_may_be_given_to_its_service_and_no_other(
    tmp_path: Path, named: bool
) -> None:
    cluster = cluster_of(tmp_path, NAMED if named else "")
    ours = tuple(f"{ACCOUNT}slipway-{name}" for name in ("jobs", "endpoints", "builds"))
    roles = (JOBS, ENDPOINTS, BUILDS) if named else (ours[0], ours[1], ours[2])
    passing = [
        permission
        for policy in operator_permissions(cluster, ["team/*"]).values()
        for permission in policy
        if "iam:PassRole" in permission.actions
    ]
    given = set()
    for call, request in requests(cluster, roles).items():
        service, _, operation = call.partition(":")
        model = service_model(service)
        for path in role_members(model.operation_model(operation).input_shape):
            for role in roles_at(request, path.split(".")):
                given.add(role)
                assert may_pass(passing, role, f"{service}.amazonaws.com"), (call, role)
                assert not may_pass(passing, role, "ec2.amazonaws.com")
                assert not may_pass(passing, f"{ACCOUNT}Admin", f"{service}.amazonaws.com")
    assert given == {*roles, cluster.role_arn}
    assert make_role_request(cluster)["RoleName"] == cluster.role_name


def may_pass(permissions: list[Permission], role: str, service: str) -> bool:
    """As IAM evaluates what these statements hold: an ARN with wildcards, one condition."""
    return any(
        any(fnmatchcase(role, resource) for resource in permission.resources)
        and permission.condition == {"StringEquals": {"iam:PassedToService": service}}
        for permission in permissions
    )
