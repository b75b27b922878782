"""The policy of whoever runs Slipway, held to the calls that its code makes, both ways."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name
from botocore.model import ServiceModel

from slipway.cluster.documents.cluster_file import ClusterFile, read_cluster_file
from slipway.cluster.documents.document_set import make_cluster_documents
from slipway.cluster.documents.operator_policy import operator_permissions
from slipway.cluster.documents.permissions import Permission, policy_text
from slipway.core import Project
from tests.support.cluster_samples import LARGE_CLUSTER, SMALL_CLUSTER
from tests.support.operator_actions import PROTOCOL_ACTIONS, actions_of, operator_actions

ROOT = Path(__file__).parents[3]
#: How a module is known to speak to AWS.
EDGES = ("aws_errors", "connect_aws", "connect_ecr", "make_client", "AwsAccount", "ClusterSite")


@cache
def service_model(service: str) -> ServiceModel:
    """botocore's own: megabytes of JSON, read once."""
    return botocore.session.get_session().get_service_model(service)


@cache
def operations(service: str) -> dict[str, str]:
    """Both spellings of each call of a service -> the API's own."""
    names = service_model(service).operation_names
    return {**{name: name for name in names}, **{xform_name(name): name for name in names}}


def clients_of(path: Path, tree: ast.AST) -> set[str]:
    """The services that a module makes clients of, or is given a client of: `aws_errors` names it
    before the call, as SERVICE:CALL.
    """
    services = {"ecr"} if path.parent.name == "ecr" or "connect_ecr" in path.read_text() else set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]  # by itself, or of its room's face
        if name in ("aws_errors", "connect_aws", "make_client") and isinstance(
            node.args[0], ast.Constant
        ):
            word = str(node.args[0].value)
            if name != "aws_errors":
                services.add(word)
            elif re.fullmatch(r"[a-z0-9-]+:[A-Z]\w+", word):
                services.add(word.partition(":")[0])
    return services


def calls_of(path: Path) -> Iterator[str]:
    """service:Operation of every call that a module makes, or has the name of in a table."""
    text = path.read_text()
    if not any(edge in text for edge in EDGES):
        return
    tree = ast.parse(text)
    clients = clients_of(path, tree)
    tabled = set()  # services whose calls are named elsewhere in the module
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("call", "pages") and isinstance(node.args[0], ast.Constant):
                service, operation = str(node.args[0].value), node.args[1]
                if isinstance(operation, ast.Constant):
                    yield f"{service}:{operations(service)[str(operation.value)]}"
                else:
                    tabled.add(service)
            if node.func.attr == "get_paginator" and isinstance(node.args[0], ast.Constant):
                yield from named(str(node.args[0].value), clients)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from named(node.value, tabled)
        elif isinstance(node, ast.Attribute):
            yield from named("put_object" if node.attr == "upload_fileobj" else node.attr, clients)


def named(word: str, services: Iterable[str]) -> Iterator[str]:
    """The call that a word names, of these services."""
    for service in services:
        if word in operations(service):
            yield f"{service}:{operations(service)[word]}"


@cache
def needed_calls() -> frozenset[str]:
    """service:Operation of every call in the code."""
    return frozenset(call for path in (ROOT / "slipway").rglob("*.py") for call in calls_of(path))


def needed_actions() -> set[str]:
    return {action for call in needed_calls() for action in actions_of(call)} | PROTOCOL_ACTIONS


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterFile:
    (tmp_path / "cluster.yaml").write_text(SMALL_CLUSTER)
    return read_cluster_file(tmp_path / "cluster.yaml")


def permissions_of(cluster: ClusterFile) -> list[Permission]:
    policies = operator_permissions(cluster, ["team/*"])
    return [permission for each in policies.values() for permission in each]


def test_all_that_the_code_calls_is_allowed_and_nothing_else() -> None:
    """Read from the source: a call that no test makes is seen, too (those made: aws_calls.py)."""
    assert sorted(needed_actions() - operator_actions()) == []
    assert sorted(operator_actions() - needed_actions()) == []


def test_a_call_that_nobody_allows_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('def f(account):  # AwsAccount\n    account.call("ec2", "RunInstances")\n')
    assert list(calls_of(path)) == ["ec2:RunInstances"]
    path.write_text("def f():\n    ecr.connect_aws('s3', 'x').delete_bucket_policy(Bucket='x')\n")
    assert list(calls_of(path)) == ["s3:DeleteBucketPolicy"]


def test_what_removes_is_bound_to_the_cluster(cluster: ClusterFile) -> None:
    """By its tag or by its name; SageMaker's and ECR's are of their own kind in the account."""
    loose = {
        (p.sid, action)
        for p in permissions_of(cluster)
        for action in p.actions
        if action.partition(":")[2].startswith(("Delete", "Detach", "Release", "Disassociate"))
        and not any("ResourceTag" in key for each in p.condition.values() for key in each)
        and not all("train" in resource for resource in p.resources)
    }
    assert loose == {
        ("WorkOnClusters", "sagemaker:DeleteCluster"),
        *(
            ("WorkOnEndpoints", f"sagemaker:Delete{kind}")
            for kind in ("Model", "Endpoint", "EndpointConfig")
        ),
    }


def test_policies_fit_and_are_documents(cluster: ClusterFile, tmp_path: Path) -> None:
    for policy in operator_permissions(cluster, ["team/*"]).values():
        assert len(policy_text(policy)) < 6144  # a managed policy (IAM quotas)
    (tmp_path / "large.yaml").write_text(LARGE_CLUSTER)
    documents = make_cluster_documents(read_cluster_file(tmp_path / "large.yaml"), Project.at(ROOT))
    text = documents.files["policy-operator-network.json"]
    sids = [statement["Sid"] for statement in json.loads(text)["Statement"]]
    assert sids == ["LookAtNetworks", "MakeNetwork", "RemoveNetwork"]


#: The actions of both roles' policies, as parliament 1.6.4 has them from AWS's own reference.
RECORDED = ROOT / "tests/unit/cluster/recorded/iam-actions.json"


def test_every_action_is_one_that_awss_reference_has(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(LARGE_CLUSTER)
    documents = make_cluster_documents(read_cluster_file(tmp_path / "large.yaml"), Project.at(ROOT))
    used = {a for each in documents.policies.values() for p in each for a in p.actions}
    recorded = json.loads(RECORDED.read_text())
    known = {*recorded["actions"], *recorded["newer"]}
    assert sorted(used - known) == []
    for action in recorded["newer"]:  # botocore, the second source, has what the first has not yet
        service, _, name = action.partition(":")
        assert name in operations(service)
