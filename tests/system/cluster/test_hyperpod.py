"""Clusters made, cut, gone on with and removed, at a control plane on loopback (moto and more)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError
from moto.ec2.models import ec2_backends

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.hyperpod import cluster_change, cluster_lease, consistency
from slipway.cluster.hyperpod.account_parts import NO_BUCKET
from slipway.cluster.hyperpod.cluster_change import bring_up_cluster, delete_cluster
from slipway.cluster.hyperpod.cluster_lease import LEASE, LEASE_S, hold_lease
from slipway.cluster.hyperpod.cluster_status import open_shell, show_cluster, show_nodes
from slipway.core import SlipwayError, UsageError, this_process
from tests.support.aws_control_plane import (
    REGION,
    ControlPlane,
    control_plane,
    control_plane_in_process,
    free_addresses,
)
from tests.support.aws_lag import AwsLag
from tests.support.cluster_samples import MOTO_CLUSTER

ROOT = Path(__file__).parents[3]
FILE = f"{MOTO_CLUSTER}prices: {{ml.g5.48xlarge: 20.36}}\n"
BUCKET = "sagemaker-train-123456789012-us-east-1"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(cluster_change, "POLL_S", 0.0)
    monkeypatch.setattr(consistency, "POLL_S", 0.0)


@pytest.fixture
def plane(credentials: None) -> Iterator[ControlPlane]:
    with control_plane_in_process() as plane:
        plane.hyperpod.quotas["ml.g5.48xlarge for cluster usage"] = 2.0
        plane.hyperpod.default_quotas["ml.c5.xlarge for cluster usage"] = 1.0
        yield plane


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(FILE)
    return path


Call = tuple[str, str, dict[str, Any]]


class Cut(BaseException):
    """The end of a run, at whatever point it was."""


class Wire:
    """All calls that leave botocore. `cut` may raise after a call that changes something."""

    READS = re.compile(r"Describe|List|Get|Head")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.dead = False  # nothing leaves any more
        self.cut: Callable[[str], None] = lambda _operation: None
        self.before: Callable[[str], None] = lambda _operation: None
        self.refusals: dict[str, list[ClientError]] = {}  # by operation, the first one first
        client_class: Any = botocore.client.BaseClient
        wire, send = self, client_class._make_api_call

        def recorded(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
            if wire.dead:
                raise Cut
            if wire.refusals.get(operation):
                raise wire.refusals[operation].pop(0)
            wire.before(operation)
            answer = send(client, operation, parameters)
            service = client.meta.service_model.service_name
            wire.calls.append((service, operation, parameters))
            if not wire.READS.match(operation):
                wire.cut(operation)
            return answer

        monkeypatch.setattr(client_class, "_make_api_call", recorded)

    def changes(self) -> list[str]:
        """What has changed something, without the lease."""
        return [
            operation
            for _, operation, parameters in self.calls
            if not self.READS.match(operation) and parameters.get("Key") != LEASE
        ]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


def up(file: Path) -> None:
    bring_up_cluster(ROOT, str(file), yes=True, dry_run=False)


def delete(file: Path, *, keep_storage: bool = False) -> None:
    delete_cluster(ROOT, str(file), yes=True, keep_storage=keep_storage)


def ec2_things() -> dict[str, int]:
    """How many there are of each kind, the ones that every account has left out."""
    ec2 = boto3.client("ec2", region_name=REGION)
    tag = [{"Name": "tag:slipway:cluster", "Values": ["train"]}]
    nats = ec2.describe_nat_gateways(Filter=tag)["NatGateways"]
    return {
        "vpcs": len(ec2.describe_vpcs(Filters=tag)["Vpcs"]),
        "subnets": len(ec2.describe_subnets(Filters=tag)["Subnets"]),
        "gateways": len(ec2.describe_internet_gateways(Filters=tag)["InternetGateways"]),
        "addresses": len(ec2.describe_addresses()["Addresses"]),
        "nats": len([nat for nat in nats if nat["State"] != "deleted"]),
        "routes": len(ec2.describe_route_tables(Filters=tag)["RouteTables"]),
        "groups": len(ec2.describe_security_groups(Filters=tag)["SecurityGroups"]),
        "endpoints": len(
            [e for e in ec2.describe_vpc_endpoints(Filters=tag)["VpcEndpoints"]
             if e["State"] != "deleted"]
        ),
    }  # fmt: skip


ALL = {
    "vpcs": 1, "subnets": 2, "gateways": 1, "addresses": 1, "nats": 1, "routes": 2, "groups": 1,
    "endpoints": 1,
}  # fmt: skip
NONE = dict.fromkeys(ALL, 0)


def test_up_makes_a_cluster_whose_parts_fit_and_delete_leaves_nothing(
    plane: ControlPlane, file: Path, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    up(file)
    told = capsys.readouterr()
    assert "2 x ml.g5.48xlarge: $40.72 an hour" in told.err
    assert "no price in the file: ml.c5.xlarge" in told.err
    assert ec2_things() == ALL
    (request,) = [p for _, operation, p in wire.calls if operation == "CreateCluster"]
    (system,) = plane.hyperpod.systems.values()
    ec2 = boto3.client("ec2", region_name=REGION)
    (subnet,) = ec2.describe_subnets(SubnetIds=request["VpcConfig"]["Subnets"])["Subnets"]
    assert subnet["AvailabilityZoneId"] == "use1-az4"
    assert system.facts["SubnetIds"] == request["VpcConfig"]["Subnets"]
    disk = request["InstanceGroups"][0]["InstanceStorageConfigs"][1]["FsxLustreConfig"]
    assert disk["DnsName"] == system.facts["DNSName"]
    (group,) = ec2.describe_security_groups(
        GroupIds=request["VpcConfig"]["SecurityGroupIds"]
    )["SecurityGroups"]  # fmt: skip
    for key in ("IpPermissions", "IpPermissionsEgress"):
        pairs = [pair["GroupId"] for rule in group[key] for pair in rule["UserIdGroupPairs"]]
        assert pairs == [group["GroupId"]]
    (table,) = ec2.describe_route_tables(
        Filters=[{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}]
    )["RouteTables"]
    assert any(route.get("NatGatewayId") for route in table["Routes"])
    storage = boto3.client("s3", region_name=REGION)
    names = [entry["Key"] for entry in storage.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert names == [
        f"lifecycle/{name}.sh" for name in ("container_storage", "on_init_complete", "shared_home")
    ]
    delete(file)
    told = capsys.readouterr()
    assert "looked again: nothing of" in told.err
    assert ec2_things() == NONE
    assert plane.hyperpod.clusters == plane.hyperpod.systems == {}
    assert AwsAccount(REGION).call("s3", "HeadBucket", NO_BUCKET, Bucket=BUCKET) is None
    assert boto3.client("iam", region_name=REGION).list_roles()["Roles"] == []
    delete(file)
    assert "nothing of train is left" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "2"))))
def test_what_aws_does_not_know_yet_is_neither_missed_nor_made_twice(
    plane: ControlPlane, file: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    lag = AwsLag(seed)
    lag.install(monkeypatch)
    up(file)
    lag.settle()
    assert ec2_things() == ALL
    made = wire.changes()
    assert made.count("CreateFileSystem") == made.count("CreateCluster") == 1
    delete(file)
    lag.settle()
    assert ec2_things() == NONE
    assert plane.hyperpod.clusters == plane.hyperpod.systems == {}
    assert lag.missed > 20


def test_a_nat_gateway_that_fails_is_told_and_the_next_run_makes_another(
    plane: ControlPlane, file: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "KNOWN_S", 0.1)
    nats = ec2_backends["123456789012"][REGION].nat_gateways

    def fail(operation: str) -> None:
        if operation == "CreateNatGateway":
            (nat,) = nats.values()
            nat.state = "failed"
            free_addresses()

    wire.cut = fail
    with pytest.raises(SlipwayError, match="the NAT gateway has failed: AWS gives no reason"):
        up(file)
    wire.cut = lambda _operation: None
    monkeypatch.setattr(consistency, "KNOWN_S", 10.0)
    up(file)
    assert [nat.state for nat in nats.values()] == ["failed", "available"]
    delete(file)


def test_what_a_removal_has_left_on_its_way_out_is_waited_for_and_made_again(
    plane: ControlPlane, file: Path, wire: Wire
) -> None:
    up(file)
    ec2 = boto3.client("ec2", region_name=REGION)
    (endpoint,) = ec2_backends["123456789012"][REGION].vpc_end_points.values()
    endpoint.state = "Deleting"
    plane.hyperpod.clusters.clear()
    looks = iter(range(3))

    def look(operation: str) -> None:
        if operation == "DescribeVpcEndpoints" and next(looks, None) is None:
            endpoint.state = "Deleted"

    wire.before = look
    wire.calls.clear()
    up(file)
    assert wire.changes() == ["CreateVpcEndpoint", "CreateCluster"]
    states = [each["State"] for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]]
    assert states == ["Deleted", "available"]
    delete(file)


def test_a_bucket_whose_name_is_not_free_yet_is_waited_for(
    plane: ControlPlane, file: Path, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "A conflicting conditional operation is currently in progress against this resource."
    refused = ClientError({"Error": {"Code": "OperationAborted", "Message": words}}, "CreateBucket")
    wire.refusals["CreateBucket"] = [refused] * 2
    up(file)
    assert "S3 has not let go of the name of a bucket" in capsys.readouterr().err
    assert wire.refusals["CreateBucket"] == []


def test_two_of_a_kind_and_what_went_by_itself_end_no_removal(
    plane: ControlPlane, file: Path, wire: Wire
) -> None:
    """A run was cut right after it had made a network, and the next one did not see it."""
    ec2 = boto3.client("ec2", region_name=REGION)
    keys = {"slipway:cluster": "train", "slipway:part": "vpc"}
    tags = [{"Key": key, "Value": value} for key, value in keys.items()]
    for _ in range(3):
        ec2.create_vpc(
            CidrBlock="10.0.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
        )

    def remove_before_us(operation: str) -> None:
        if operation == "DeleteVpc":
            wire.before = lambda _operation: None
            filters = [{"Name": "tag:slipway:part", "Values": ["vpc"]}]
            there = ec2.describe_vpcs(Filters=filters)["Vpcs"]
            ec2.delete_vpc(VpcId=there[0]["VpcId"])

    wire.before = remove_before_us
    delete(file)
    assert ec2_things() == NONE


def attempts(wire: Wire, change: Callable[[], None], *, killed: bool) -> int:
    """How many runs it takes, each of them cut right after the first thing that it changes.

    A run that is `killed` does nothing more: its lease stays, of a process that has ended.
    """

    def cut(_operation: str) -> None:
        if wire.calls[-1][2].get("Key") != LEASE:
            wire.dead = killed
            raise Cut

    wire.cut = cut
    for count in range(1, 80):
        try:
            change()
        except Cut:
            wire.dead = False
            if killed:
                leave_lease_of_the_dead()
            continue
        wire.cut = lambda _operation: None
        return count
    raise AssertionError("it never ends")


def leave_lease_of_the_dead() -> None:
    """The lease that this process has left in the bucket, if any, becomes one of an ended one."""
    storage = boto3.client("s3", region_name=REGION)
    if all(bucket["Name"] != BUCKET for bucket in storage.list_buckets()["Buckets"]):
        return
    if LEASE in [e["Key"] for e in storage.list_objects_v2(Bucket=BUCKET).get("Contents", ())]:
        holder = json.loads(storage.get_object(Bucket=BUCKET, Key=LEASE)["Body"].read())
        owner = str(replace(this_process(), start=1))  # one that had this number before
        storage.put_object(Bucket=BUCKET, Key=LEASE, Body=json.dumps({**holder, "owner": owner}))


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_run_that_is_cut_after_any_step_is_gone_on_with(
    plane: ControlPlane, file: Path, wire: Wire, killed: bool
) -> None:
    """Every run is cut after its first change: together they change what one run changes."""
    plane.hyperpod.looks = 0
    up(file)
    straight = wire.changes()
    delete(file)
    wire.calls.clear()
    count = attempts(wire, lambda: up(file), killed=killed)
    assert wire.changes() == straight
    assert count == len(straight) + 1
    assert ec2_things() == ALL
    wire.calls.clear()
    attempts(wire, lambda: delete(file), killed=killed)
    assert ec2_things() == NONE
    assert plane.hyperpod.clusters == plane.hyperpod.systems == {}


def test_a_second_up_changes_nothing_and_a_changed_count_only_that(
    plane: ControlPlane, file: Path, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    up(file)
    wire.calls.clear()
    up(file)
    assert wire.changes() == []
    file.write_text(FILE.replace("count: 2", "count: 1"))
    up(file)
    assert wire.changes() == ["UpdateCluster"]
    update = next(p for _, operation, p in wire.calls if operation == "UpdateCluster")
    (group,) = update["InstanceGroups"]
    assert (group["InstanceGroupName"], group["InstanceCount"]) == ("workers", 1)
    file.write_text(FILE.replace("workers:", "others:"))
    with pytest.raises(UsageError, match=r"train\.yaml:6: the cluster has a group workers"):
        up(file)


def test_another_run_is_refused_by_name_until_it_has_ended(
    plane: ControlPlane, file: Path, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
    account = AwsAccount(REGION)
    with hold_lease(account, BUCKET, "cluster.delete"):
        wire.calls.clear()
        with pytest.raises(SlipwayError, match=r"is at work on this cluster: inv cluster\.delete"):
            up(file)
        assert wire.changes() == []  # the one that holds it keeps it
        with pytest.raises(SlipwayError, match="is at work"):
            delete(file)
    with hold_lease(account, BUCKET, "cluster.up"):
        pass


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, False),
        ({"host": "elsewhere", "owner": "elsewhere.1.1"}, False),
        ({"time": -LEASE_S}, True),
        ({"pid": 1}, False),
    ],
    ids=["of a run here", "of another machine", "of long ago", "whatever its number is"],
)
def test_a_lease_is_taken_over_only_from_the_dead(
    plane: ControlPlane, changes: dict[str, Any], taken: bool, wire: Wire
) -> None:
    storage = boto3.client("s3", region_name=REGION)
    storage.create_bucket(Bucket=BUCKET)
    account = AwsAccount(REGION)
    cluster_lease.ClusterLease(account, BUCKET, "cluster.up").take()
    holder = json.loads(storage.get_object(Bucket=BUCKET, Key=LEASE)["Body"].read())
    if "time" in changes:
        changes = {"time": holder["time"] + changes["time"] - 1}
    storage.put_object(Bucket=BUCKET, Key=LEASE, Body=json.dumps({**holder, **changes}))
    second = cluster_lease.ClusterLease(account, BUCKET, "cluster.delete")
    if taken:
        second.take()
    else:
        with pytest.raises(SlipwayError, match="is at work on this cluster"):
            second.take()


def test_the_lease_of_a_killed_run_of_this_machine_is_taken_at_once(
    credentials: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with control_plane() as plane:
        monkeypatch.setenv("AWS_ENDPOINT_URL", plane.url)
        boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
        pid = os.fork()
        if pid == 0:
            cluster_lease.ClusterLease(AwsAccount(REGION), BUCKET, "cluster.up").take()
            os._exit(0)
        os.waitpid(pid, 0)
        with hold_lease(AwsAccount(REGION), BUCKET, "cluster.up"):
            assert "was cut: this one goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("use1-az4", "use1-az3", 5, "EC2 has no c5.xlarge in use1-az3"),
        ("count: 2", "count: 3", 7, "may have 2 ml.g5.48xlarge in clusters, and this one has 3"),
        ("123456789012", "111122223333", 3, "the credentials are of 123456789012"),
    ],
)
def test_what_aws_would_refuse_is_told_before_anything_is_made(
    plane: ControlPlane, file: Path, wire: Wire, old: str, new: str, line: int, words: str
) -> None:
    file.write_text(FILE.replace(old, new))
    with pytest.raises(UsageError) as caught:
        up(file)
    assert f"train.yaml:{line}: " in str(caught.value)
    assert words in str(caught.value)
    assert wire.changes() == []


def test_a_subnet_of_another_zone_is_told(plane: ControlPlane, file: Path, wire: Wire) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24", AvailabilityZoneId="use1-az1")
    name = subnet["Subnet"]["SubnetId"]
    file.write_text(f"{FILE}network: {{subnet: {name}, security_group: sg-0123456789abcdef0}}\n")
    with pytest.raises(UsageError, match=rf"train\.yaml:9: {name} is in use1-az1, not in use1-az4"):
        up(file)


LIMIT = (
    "The account-level service limit 'ml.g5.48xlarge for cluster usage' is 0 Instances, with "
    "current utilization of 0 Instances and a request delta of 2 Instances."
)
INVALID = (
    "1 validation error detected: Value 'ml.g5.48xlarge' at "
    "'instanceGroups.2.member.instanceType' failed to satisfy constraint"
)


@pytest.mark.parametrize("times", [1, 3])
def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(
    plane: ControlPlane, file: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    words = (
        "Unable to assume the role arn:aws:iam::123456789012:role/x. Ensure that the role exists "
        "and allows principal 'sagemaker.amazonaws.com' to assume the role."
    )
    plane.refusals["CreateCluster"] = [("ValidationException", words)] * times
    up(file)
    assert plane.refusals["CreateCluster"] == []
    assert wire.changes().count("CreateCluster") == 1
    # One that never becomes known is told in AWS's words.
    monkeypatch.setattr(consistency, "KNOWN_S", 0.0)
    delete(file)
    plane.refusals["CreateCluster"] = [("ValidationException", words)]
    with pytest.raises(SlipwayError, match="Unable to assume the role"):
        up(file)


@pytest.mark.parametrize(
    ("call", "code", "message", "line", "cure"),
    [
        ("CreateCluster", "ResourceLimitExceeded", LIMIT, 7, "Service Quotas"),
        ("CreateCluster", "ValidationException", INVALID, 7, ""),
        ("CreateCluster", "ValidationException", "at 'clusterName' is wrong", 1, ""),
        ("CreateCluster", "ResourceInUse", "it is being deleted", 1, "cluster.status"),
        ("CreateFileSystem", "ServiceLimitExceeded", "too many file systems", 1, "Service Quotas"),
    ],
)
def test_a_refusal_has_awss_words_and_the_line(
    plane: ControlPlane, file: Path, call: str, code: str, message: str, line: int, cure: str
) -> None:
    plane.refusals[call] = [(code, message)]
    with pytest.raises(SlipwayError) as caught:
        up(file)
    text = str(caught.value)
    assert message in text
    assert f"train.yaml:{line}: " in text
    assert cure in text


def test_a_state_that_forbids_a_change_is_told_and_a_removal_waits_for_its_end(
    plane: ControlPlane, file: Path
) -> None:
    up(file)
    file.write_text(FILE.replace("count: 2", "count: 1"))
    plane.refusals["UpdateCluster"] = [("ConflictException", "the cluster is Updating")]
    with pytest.raises(SlipwayError, match=r"train\.yaml:6: .*the cluster is Updating") as caught:
        up(file)
    assert "`./inv cluster.status" in str(caught.value)
    plane.refusals["DeleteCluster"] = [("ConflictException", "the cluster is Updating")] * 2
    delete(file)
    assert plane.refusals["DeleteCluster"] == []
    assert ec2_things() == NONE


def test_throttling_is_tried_again(
    plane: ControlPlane, file: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _seconds: None)
    plane.refusals["CreateCluster"] = [("ThrottlingException", "Rate exceeded")] * 2
    up(file)
    assert wire.changes().count("CreateCluster") == 1
    assert plane.refusals["CreateCluster"] == []


def test_a_cluster_that_failed_is_told_with_its_cause(
    plane: ControlPlane, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up(file)
    cluster = plane.hyperpod.clusters["train"]
    cluster.state = cluster.following = "Failed"
    cluster.facts["FailureMessage"] = "Lifecycle scripts did not run successfully"
    plane.hyperpod.events = [
        {
            "EventId": "0", "ClusterArn": cluster.facts["ClusterArn"], "ClusterName": "train",
            "ResourceType": "Instance", "EventTime": 1764333005, "InstanceId": "i-0",
            "EventLevel": "Error", "Description": "on_init_complete.sh ended with 1",
        }
    ]  # fmt: skip
    with pytest.raises(SlipwayError, match="the cluster is failed: Lifecycle scripts did not run"):
        up(file)
    capsys.readouterr()
    show_cluster(str(file), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["train: Failed", "cause: Lifecycle scripts did not run successfully"]
    assert lines[-1].endswith("Error  i-0  on_init_complete.sh ended with 1")
    show_cluster(str(file), as_json=True)
    state = json.loads(capsys.readouterr().out)
    assert [group["name"] for group in state["groups"]] == ["controller", "workers"]
    delete(file)
    assert ec2_things() == NONE


def test_nodes_and_a_shell(
    plane: ControlPlane,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=r"train\.yaml:1: there is no cluster 'train'"):
        show_nodes(str(file), as_json=False)
    up(file)
    capsys.readouterr()
    show_nodes(str(file), as_json=True)
    nodes = json.loads(capsys.readouterr().out)
    assert [(node["group"], node["status"]) for node in nodes] == [
        ("controller", "Running"),
        ("workers", "Running"),
        ("workers", "Pending"),
    ]
    open_shell(str(file), "controller", ssh_config=True)
    identifier = plane.hyperpod.clusters["train"].facts["ClusterArn"].rpartition("/")[2]
    target = f"sagemaker-cluster:{identifier}_controller-{nodes[0]['id']}"
    assert f"--target {target} --document-name AWS-StartSSHSession" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no node or group 'worker' \\(did you mean workers"):
        open_shell(str(file), "worker", ssh_config=True)
    with pytest.raises(SlipwayError, match="lifecycle script runs"):
        open_shell(str(file), nodes[2]["id"], ssh_config=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlipwayError, match="there is no session-manager-plugin"):
        open_shell(str(file), "controller", ssh_config=False)
    assert plane.hyperpod.sessions == []
    (tmp_path / "session-manager-plugin").write_text("#!/bin/sh\n")
    (tmp_path / "session-manager-plugin").chmod(0o755)
    started: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *words: started.append(words))
    open_shell(str(file), "controller", ssh_config=False)
    ((program, words, environment),) = started
    assert (program, *words[1:4]) == (
        *("session-manager-plugin", "AWS_SSM_START_SESSION_RESPONSE", "us-east-1"),
        "StartSession",
    )
    assert json.loads(words[5]) == {"Target": target}
    assert json.loads(environment[words[1]])["TokenValue"] == "token"
    assert "token" not in " ".join(words)  # arguments are there for everybody to read
    assert plane.hyperpod.sessions == [target]


def test_storage_can_be_kept_and_found_again(
    plane: ControlPlane, file: Path, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    up(file)
    (first,) = plane.hyperpod.systems
    delete(file, keep_storage=True)
    assert "stays" in capsys.readouterr().out
    assert ec2_things() == ALL
    assert list(plane.hyperpod.systems) == [first]
    assert plane.hyperpod.clusters == {}
    up(file)
    assert list(plane.hyperpod.systems) == [first]


def test_nobody_to_ask_means_nothing_is_changed(
    plane: ControlPlane, file: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="Nobody can be asked"):
        bring_up_cluster(ROOT, str(file), yes=False, dry_run=False)
    bring_up_cluster(ROOT, str(file), yes=False, dry_run=True)
    assert wire.changes() == []
