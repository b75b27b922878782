"""Any legal file of a cluster gives documents that AWS takes; any other is refused with a line."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.cluster.documents.cluster_file import read_cluster_file
from slipway.cluster.documents.document_set import ClusterDocuments, make_cluster_documents
from slipway.cluster.documents.permissions import policy_text
from slipway.core import Project, SlipwayError, UsageError
from slipway.matrix import region_partition, region_suffixes
from tests.support.aws_control_plane import check_request
from tests.support.cluster_samples import LARGE_CLUSTER, SMALL_CLUSTER

ROOT = Path(__file__).parents[3]
PROJECT = Project.at(ROOT)
RECORDED = json.loads((ROOT / "tests/unit/cluster/recorded/iam-actions.json").read_text())
KNOWN = {*RECORDED["actions"], *RECORDED["newer"]}
TYPES = ("ml.p5.48xlarge", "ml.g5.8xlarge", "ml.c5.xlarge", "ml.p4de.24xlarge")

accounts = st.from_regex(r"[0-9]{12}", fullmatch=True)
words = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,5})?", fullmatch=True)
identifiers = st.from_regex(r"[0-9a-f]{17}", fullmatch=True)
repositories = st.from_regex(r"[a-z0-9][a-z0-9._/-]{0,20}\*?", fullmatch=True)
buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    return draw(
        st.fixed_dictionaries(
            {"instance": st.sampled_from(TYPES), "count": st.integers(1, 6758)},
            optional={
                "partition": st.from_regex(r"[a-zA-Z0-9](-{0,2}[a-zA-Z0-9]){0,8}", fullmatch=True),
                "volume_gb": st.integers(1, 16384),
                "threads_per_core": st.integers(1, 2),
                "health_checks": st.lists(
                    st.sampled_from(["InstanceStress", "InstanceConnectivity"]),
                    max_size=2,
                    unique=True,
                ),
            },
        )
    )


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A legal one, as data."""
    region = draw(st.sampled_from(sorted(region_suffixes())))
    role = st.builds(
        lambda account, name: f"arn:{region_partition(region)}:iam::{account}:role/{name}",
        accounts,
        st.from_regex(r"[A-Za-z0-9+=,.@_/-]{1,20}", fullmatch=True),
    )
    made = st.builds(lambda n: 2400 * n or 1200, st.integers(0, 800))
    there = st.builds(
        lambda name, mount: {"file_system": f"fs-{name}", "mount_name": mount},
        identifiers,
        st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True),
    )
    network = st.builds(
        lambda a, b: {"subnet": f"subnet-{a}", "security_group": f"sg-{b}"},
        identifiers,
        identifiers,
    )
    return draw(
        st.fixed_dictionaries(
            {
                "name": words,
                "region": st.just(region),
                "account": accounts,
                "zone": st.from_regex(r"[a-z]{3,5}[0-9]-az[0-9]", fullmatch=True),
                "controller": st.sampled_from(TYPES),
                "groups": st.dictionaries(
                    words.filter(lambda name: name not in ("controller", "login")),
                    groups(),
                    min_size=1,
                    max_size=4,
                ),
            },
            optional={
                "login": st.sampled_from(TYPES),
                "network": st.just("make") | network,
                "storage": there
                | st.fixed_dictionaries(
                    {"capacity_gib": made}, optional={"throughput": st.sampled_from([125, 1000])}
                ),
                "slurm": st.sampled_from(["api", "legacy"]),
                "strategy": st.sampled_from(["Managed", "Overwrite", "Merge"]),
                "recovery": st.sampled_from(["Automatic", "None"]),
                "image_version": st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", fullmatch=True),
                "repositories": st.lists(repositories, max_size=3),
                "builds": st.booleans(),
                "buckets": st.lists(buckets, max_size=3),
                "consumers": st.lists(accounts, max_size=3),
                "roles": st.fixed_dictionaries(
                    {}, optional={"jobs": role, "endpoints": role, "builds": role}
                ),
            },
        )
    )  # fmt: skip


def documents_of(folder: Path, text: str) -> ClusterDocuments:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return make_cluster_documents(read_cluster_file(path), PROJECT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@settings(max_examples=40)
@given(files())
def test_all_documents_of_a_legal_file_are_what_aws_takes(
    folder: Path, data: dict[str, Any]
) -> None:
    documents = documents_of(folder, json.dumps(data))
    requests: list[tuple[str, str, dict[str, Any]]] = []
    for name, text in documents.files.items():
        assert text.endswith("\n")
        if not name.endswith(".json"):
            continue
        value = json.loads(text)
        if name in REQUESTS:
            requests.append((*REQUESTS[name], value))
        elif name == "security-group.json":
            requests += [("ec2", call, parameters) for call, parameters in value.items()]
        elif name == "repository-policy.json":
            policy = {"repositoryName": "team/image", "policyText": text}
            requests.append(("ecr", "SetRepositoryPolicy", policy))
        elif name.startswith("policy-operator"):
            policy = {"PolicyName": name[:-5], "PolicyDocument": text}
            requests.append(("iam", "CreatePolicy", policy))
        elif name.startswith("policy-"):
            policy = {"RoleName": "role", "PolicyName": name[:-5], "PolicyDocument": text}
            requests.append(("iam", "PutRolePolicy", policy))
        else:
            assert name == "lifecycle/provisioning_parameters.json"
    for service, call, parameters in requests:
        assert check_request(service, call, parameters) == [], call
    check_policies(documents, region_partition(data["region"]))


REQUESTS = {
    "create-cluster.json": ("sagemaker", "CreateCluster"),
    "create-role.json": ("iam", "CreateRole"),
    "create-file-system.json": ("fsx", "CreateFileSystem"),
}


def check_policies(documents: ClusterDocuments, partition: str) -> None:
    """By the grammar of IAM's policies and by its quotas; each is explained."""
    permissions = [each for policy in documents.policies.values() for each in policy]
    sids = [permission.sid for permission in permissions]
    assert len({*sids}) == len(sids)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)
    assert {action for each in permissions for action in each.actions} <= KNOWN
    for permission in permissions:
        assert permission.resources
        for resource in permission.resources:
            assert resource == "*" or resource.split(":")[:2] == ["arn", partition], resource
    explained = "\n".join(documents.explain())
    for name, policy in documents.policies.items():
        for permission in policy:
            assert f"policy-{name}.json, {permission.sid}: " in explained
            assert f"    {permission.reason}\n    {permission.source}" in explained
    sizes = {name: len(policy_text(policy)) for name, policy in documents.policies.items()}
    operator = [size for name, size in sizes.items() if name.startswith("operator")]
    assert max(operator) <= 6144
    assert sum(sizes.values()) - sum(operator) <= 10_240


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("repositories", "some-team/some-image-{}"),
        ("buckets", "some-bucket-{}"),
        ("consumers", "{:012d}"),
    ],
)
def test_a_list_that_makes_a_policy_too_long_is_named_with_its_line(
    tmp_path: Path, key: str, entry: str
) -> None:
    """IAM would refuse the policy half-way through `up`; here nothing is made yet."""
    for count in (400, 3000):
        names = [entry.format(number) for number in range(count)]
        with pytest.raises(UsageError, match=f"{key} is too long a list") as caught:
            documents_of(tmp_path, f"{SMALL_CLUSTER}{key}: {json.dumps(names)}\n")
        assert "cluster.yaml:8: " in str(caught.value)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**20, 10**25),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "\n", "ml.p5.48xlarge\n", "a" * 300, "ü", "*", "2026-01-01", "0x10"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


@settings(max_examples=150)
@given(files(), st.data())
def test_an_odd_value_anywhere_is_a_paragraph_with_a_line(
    folder: Path, data: dict[str, Any], choice: st.DataObject
) -> None:
    container, key = choice.draw(
        st.sampled_from(range(len(places(data)))).map(places(data).__getitem__)
    )
    value = choice.draw(ODD)
    if isinstance(container, dict) and choice.draw(st.booleans()):
        container[choice.draw(st.text(max_size=5) | st.sampled_from(["1", "on", "~"]))] = value
    else:
        container[key] = value
    text = yaml_text(data)
    told = ""
    try:
        documents_of(folder, text)
    except SlipwayError as error:
        told = str(error)
    lines = [int(line) for line in re.findall(r"cluster\.yaml:([0-9]+): ", told)]
    assert bool(lines) == bool(told), told
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


def yaml_text(value: Any, indent: str = "") -> str:
    """Block style, so that entries have lines; keys are bare where YAML takes them so."""
    if isinstance(value, dict) and value:
        return "".join(
            f"{indent}{key if re.fullmatch('[a-z0-9_.~-]+', key) else json.dumps(key)}:"
            + (f"\n{yaml_text(item, indent + '  ')}" if isinstance(item, dict) and item
               else f" {scalar(item)}\n")
            for key, item in value.items()
        )  # fmt: skip
    return f"{indent}{scalar(value)}\n"


def scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[repr(value)]
    return json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        f"{SMALL_CLUSTER}name: again\n",
        SMALL_CLUSTER.replace("workers", "1"),
        SMALL_CLUSTER.replace("workers", "~"),
        SMALL_CLUSTER.replace("workers", "2026-01-01"),
        SMALL_CLUSTER.replace("workers", "[a]"),
        SMALL_CLUSTER.replace("count: 4", "count: 1_0"),
        SMALL_CLUSTER.replace("name:", "\tname:"),
        f"%YAML 1.1\n---\n{SMALL_CLUSTER}---\n{SMALL_CLUSTER}",
        f"{SMALL_CLUSTER}prices: {{ml.p5.48xlarge: 1e3}}\n",
        f"{SMALL_CLUSTER}prices: {{ml.p5.48xlarge: -1}}\n",
        f"{SMALL_CLUSTER}prices: {{ml.p5.48xlarge: .inf}}\n",
        f"{SMALL_CLUSTER}<<: {{zone: usw2-az1}}\n",
        f"{SMALL_CLUSTER}a: !!python/object:os.system x\n",
        "{" * 500,
        "[" * 2000,
        "a: " * 200,
    ],
)
def test_what_yaml_alone_can_do_is_a_paragraph_with_a_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(SlipwayError, match=r"cluster\.yaml:[0-9]+: "):
        documents_of(tmp_path, text)


def test_every_bucket_that_jobs_write_to_is_one_the_operator_may_put_code_into(
    tmp_path: Path,
) -> None:
    """sagemaker.job and fanout upload: by resource and not by name of the action alone."""
    policies = documents_of(tmp_path, LARGE_CLUSTER).policies
    objects = "arn:aws-us-gov:s3:::train-data/*"
    allowed = {
        action
        for permission in policies["operator-jobs"]
        for action in permission.actions
        if objects in permission.resources
    }
    assert allowed == {"s3:GetObject", "s3:PutObject"}
