"""HyperPod clusters, FSx and quotas on loopback, in the states that AWS documents for them.

Cluster states: docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeCluster.html; file
systems: docs.aws.amazon.com/fsx/latest/APIReference/API_FileSystem.html. What takes time at AWS
takes a number of looks here (`looks`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, Any]]

ACCOUNT_ID, REGION_NAME = "123456789012", "us-east-1"  # moto's own account


def refusal(code: str, message: str) -> Answer:
    """As services of the JSON protocol refuse."""
    return 400, {"__type": code, "message": message}


@dataclass
class _Slow:
    """Something in a state that passes after some looks."""

    facts: dict[str, Any]
    state: str
    following: str
    looks: int

    def look(self) -> str:
        if self.looks <= 0:
            self.state = self.following
        self.looks -= 1
        return self.state


@dataclass
class ClusterService:
    """Clusters, file systems and quotas of one account."""

    looks: int = 1
    clusters: dict[str, _Slow] = field(default_factory=dict)
    systems: dict[str, _Slow] = field(default_factory=dict)
    quotas: dict[str, float] = field(default_factory=dict)
    default_quotas: dict[str, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def answer(self, call: str, body: dict[str, Any]) -> Answer | None:
        """The answer to a call, None for one that is not played here."""
        method: Callable[[dict[str, Any]], Answer] | None = getattr(self, f"_{call}", None)
        return method(body) if method else None

    # SageMaker

    def _CreateCluster(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        name = body["ClusterName"]
        if name in self.clusters:
            return refusal("ResourceInUse", f"Cluster with name {name} already exists")
        arn = f"arn:aws:sagemaker:{REGION_NAME}:{ACCOUNT_ID}:cluster/{next(self._numbers):012d}"
        facts = {**body, "ClusterArn": arn}
        self.clusters[name] = _Slow(facts, "Creating", "InService", self.looks)
        return 200, {"ClusterArn": arn}

    def _DescribeCluster(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        cluster = self._cluster(body)
        status = cluster.look() if cluster else "gone"
        if cluster is None or status == "gone":
            self.clusters.pop(body["ClusterName"], None)
            return refusal("ResourceNotFound", f"Cluster {body['ClusterName']} not found")
        facts = cluster.facts
        groups = [
            {
                "InstanceGroupName": group["InstanceGroupName"],
                "InstanceType": group["InstanceType"],
                "CurrentCount": group["InstanceCount"] if status == "InService" else 0,
                "TargetCount": group["InstanceCount"],
                "Status": status,
            }
            for group in facts["InstanceGroups"]
        ]
        return 200, {
            "ClusterArn": facts["ClusterArn"],
            "ClusterName": facts["ClusterName"],
            "ClusterStatus": status,
            "FailureMessage": facts.get("FailureMessage", ""),
            "InstanceGroups": groups,
            "NodeProvisioningMode": facts.get("NodeProvisioningMode"),
        }

    def _UpdateCluster(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        cluster = self._cluster(body)
        assert cluster is not None
        changed = {group["InstanceGroupName"]: group for group in body["InstanceGroups"]}
        kept = [
            group
            for group in cluster.facts["InstanceGroups"]
            if group["InstanceGroupName"] not in changed
        ]
        cluster.facts["InstanceGroups"] = [*kept, *changed.values()]
        cluster.state, cluster.looks = "Updating", self.looks
        return 200, {"ClusterArn": cluster.facts["ClusterArn"]}

    def _DeleteCluster(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        cluster = self._cluster(body)
        if cluster is None:
            return refusal("ResourceNotFound", "no such cluster")
        if cluster.state in ("Creating", "Updating"):
            return refusal("ConflictException", f"the cluster is {cluster.state}")
        cluster.state, cluster.following, cluster.looks = "Deleting", "gone", self.looks
        return 200, {"ClusterArn": cluster.facts["ClusterArn"]}

    def _ListClusterNodes(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        cluster = self._cluster(body)
        assert cluster is not None
        nodes: list[dict[str, Any]] = []
        for group in cluster.facts["InstanceGroups"]:
            for number in range(group["InstanceCount"]):
                nodes.append(
                    {
                        "InstanceGroupName": group["InstanceGroupName"],
                        "InstanceId": f"i-{len(nodes):017x}",
                        "InstanceType": group["InstanceType"],
                        "LaunchTime": time.time(),
                        "PrivateDnsHostname": f"ip-10-0-128-{len(nodes)}.ec2.internal",
                        "InstanceStatus": {
                            "Status": "Pending" if number == 1 else "Running",
                            "Message": "lifecycle script runs" if number == 1 else "",
                        },
                    }
                )
        return 200, {"ClusterNodeSummaries": nodes}

    def _ListClusterEvents(self, _body: dict[str, Any]) -> Answer:  # noqa: N802
        return 200, {"Events": list(reversed(self.events))}

    def _cluster(self, body: dict[str, Any]) -> _Slow | None:
        return self.clusters.get(body["ClusterName"])

    # FSx

    def _CreateFileSystem(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        identifier = f"fs-{next(self._numbers):017x}"
        facts = {
            "FileSystemId": identifier,
            "FileSystemType": body["FileSystemType"],
            "DNSName": f"{identifier}.fsx.{REGION_NAME}.amazonaws.com",
            "LustreConfiguration": {"MountName": "abcdefgh"},
            "SubnetIds": body["SubnetIds"],
            "Tags": body["Tags"],
        }
        self.systems[identifier] = _Slow(facts, "CREATING", "AVAILABLE", self.looks)
        return 200, {"FileSystem": {**facts, "Lifecycle": "CREATING"}}

    def _DescribeFileSystems(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        found = []
        for identifier in body.get("FileSystemIds", list(self.systems)):
            system = self.systems.get(identifier)
            if system is None or system.look() == "gone":
                self.systems.pop(identifier, None)
                if "FileSystemIds" in body:
                    return refusal("FileSystemNotFound", f"File system '{identifier}' not found.")
                continue
            found.append({**system.facts, "Lifecycle": system.state})
        return 200, {"FileSystems": found}

    def _DeleteFileSystem(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        system = self.systems[body["FileSystemId"]]
        system.state, system.following, system.looks = "DELETING", "gone", self.looks
        return 200, {"FileSystemId": body["FileSystemId"], "Lifecycle": "DELETING"}

    # Service Quotas, Systems Manager

    def _ListServiceQuotas(self, _body: dict[str, Any]) -> Answer:  # noqa: N802
        return 200, {"Quotas": [{"QuotaName": n, "Value": v} for n, v in self.quotas.items()]}

    def _ListAWSDefaultServiceQuotas(self, _body: dict[str, Any]) -> Answer:  # noqa: N802
        rows = self.default_quotas.items()
        return 200, {"Quotas": [{"QuotaName": name, "Value": value} for name, value in rows]}

    def _StartSession(self, body: dict[str, Any]) -> Answer:  # noqa: N802
        self.sessions.append(body["Target"])
        return 200, {"SessionId": "s-1", "TokenValue": "token", "StreamUrl": "wss://x"}
