"""The requests that make a cluster, from its file: HyperPod's, IAM's, FSx's, EC2's. Pure.

Names, patterns and bounds are botocore's model of each call; what stands beside is from AWS's
documents, named where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway.cluster.aws_model import request_faults
from slipway.cluster.documents.cluster_file import (
    CONTROLLER,
    LOGIN,
    PART_TAG,
    ClusterFile,
    FilePath,
    InstanceGroupEntry,
)
from slipway.cluster.documents.permissions import trust_document
from slipway.core import BadInputError, UsageError
from slipway.matrix import region_suffixes

MOUNT = "/fsx"
_CONTROLLER_VOLUME_GB = 100


@dataclass(frozen=True)
class ClusterParts:
    """Ids of what a cluster is put into. Before they are made all of them are zeros."""

    subnet: str
    security_group: str
    dns_name: str
    mount_name: str

    @classmethod
    def unmade(cls, cluster: ClusterFile) -> ClusterParts:
        """As far as the file knows them."""
        network, storage = cluster.entry.network, cluster.entry.storage
        zeros = "0" * 17
        system = storage.file_system or f"fs-{zeros}"
        return cls(
            network.subnet if network != "make" else f"subnet-{zeros}",
            network.security_group if network != "make" else f"sg-{zeros}",
            f"{system}.fsx.{cluster.region}.{region_suffixes()[cluster.region]}",
            storage.mount_name or "zeros",
        )


@dataclass(frozen=True)
class ClusterRequest:
    """CreateCluster's parameters, and which place of the file each of them comes from."""

    parameters: dict[str, Any]
    places: Mapping[FilePath, FilePath]

    def place(self, field: FilePath) -> FilePath:
        """Where in the file a field of the request comes from, or what is around it."""
        while field and field not in self.places:
            field = field[:-1]
        return self.places.get(field, ())


def make_cluster_request(cluster: ClusterFile, parts: ClusterParts) -> ClusterRequest:
    """CreateCluster, with Slurm's configuration in the call (or beside it: `slurm: legacy`)."""
    entry = cluster.entry
    places: dict[FilePath, FilePath] = {
        ("ClusterName",): ("name",),
        ("NodeRecovery",): ("recovery",),
        ("Orchestrator",): ("strategy",),
        ("VpcConfig",): ("network",),
        ("InstanceGroups",): ("groups",),
    }
    groups = []
    first = InstanceGroupEntry(instance=entry.controller, count=1, volume_gb=_CONTROLLER_VOLUME_GB)
    asked: list[tuple[str, str, InstanceGroupEntry]] = [(CONTROLLER, "Controller", first)]
    if entry.login:
        login = InstanceGroupEntry(instance=entry.login, count=1, volume_gb=_CONTROLLER_VOLUME_GB)
        asked.append((LOGIN, "Login", login))
    asked += [(name, "Compute", group) for name, group in entry.groups.items()]
    for number, (name, kind, group) in enumerate(asked):
        groups.append(_group(cluster, parts, name, kind, group))
        worker = kind == "Compute"
        root: FilePath = ("groups", name) if worker else (name,)
        places[("InstanceGroups", number)] = root
        for member, key in _MEMBERS.items():
            places[("InstanceGroups", number, member)] = (*root, key) if worker else root
    parameters: dict[str, Any] = {
        "ClusterName": entry.name,
        "InstanceGroups": groups,
        "VpcConfig": {"SecurityGroupIds": [parts.security_group], "Subnets": [parts.subnet]},
        "NodeRecovery": entry.recovery,
        "Tags": cluster.tags,
    }
    if entry.slurm == "api":
        parameters["Orchestrator"] = {"Slurm": {"SlurmConfigStrategy": entry.strategy}}
        # New nodes come one by one and are tried again, instead of all or none (SageMaker guide,
        # "Continuous provisioning for enhanced cluster operations with Slurm").
        parameters["NodeProvisioningMode"] = "Continuous"
    return ClusterRequest(parameters, places)


def check_cluster_request(cluster: ClusterFile, request: ClusterRequest) -> None:
    """Raise UsageError, with lines of the file, for what AWS would refuse by its model."""
    faults = request_faults("sagemaker", "CreateCluster", request.parameters)
    if faults:
        raise BadInputError(
            [
                UsageError(
                    f"{fault.field} {fault.what}",
                    where=cluster.where(request.place(fault.path)),
                    cure="The installed botocore's model of CreateCluster says so; a newer one may "
                    "know more: docs.aws.amazon.com/sagemaker/latest/APIReference/"
                    "API_CreateCluster.html",
                )
                for fault in faults
            ]
        )


_MEMBERS = {
    "InstanceType": "instance",
    "InstanceCount": "count",
    "InstanceStorageConfigs": "volume_gb",
    "TrainingPlanArn": "training_plan",
    "ThreadsPerCore": "threads_per_core",
    "OnStartDeepHealthChecks": "health_checks",
    "SlurmConfig": "partition",
    "ImageReleaseVersion": "image_version",
}


def _group(
    cluster: ClusterFile, parts: ClusterParts, name: str, kind: str, group: InstanceGroupEntry
) -> dict[str, Any]:
    entry = cluster.entry
    api = entry.slurm == "api"
    disks: list[dict[str, Any]] = [{"EbsVolumeConfig": {"VolumeSizeInGB": group.volume_gb}}]
    if api:
        disks.append(
            {
                "FsxLustreConfig": {
                    "DnsName": parts.dns_name,
                    "MountName": parts.mount_name,
                    "MountPath": MOUNT,
                }
            }
        )
    # With Slurm's configuration in the call the machine image starts Slurm by itself, and our
    # scripts come after it (ClusterLifeCycleConfig, OnInitComplete).
    script = {"OnInitComplete": "on_init_complete.sh"} if api else {"OnCreate": "on_create.sh"}
    request: dict[str, Any] = {
        "InstanceGroupName": name,
        "InstanceType": group.instance,
        "InstanceCount": group.count,
        "LifeCycleConfig": {"SourceS3Uri": f"s3://{cluster.bucket}/lifecycle", **script},
        "ExecutionRole": cluster.role_arn,
        "InstanceStorageConfigs": disks,
    }
    if api:
        request["SlurmConfig"] = {"NodeType": kind}
        if kind == "Compute":
            request["SlurmConfig"]["PartitionNames"] = [group.partition or name]
    if group.threads_per_core:
        request["ThreadsPerCore"] = group.threads_per_core
    if group.training_plan:
        request["TrainingPlanArn"] = group.training_plan
    if group.health_checks:
        request["OnStartDeepHealthChecks"] = list(group.health_checks)
    if entry.image_version:
        request["ImageReleaseVersion"] = entry.image_version
    return request


def provisioning_parameters(cluster: ClusterFile, parts: ClusterParts) -> dict[str, Any]:
    """`provisioning_parameters.json` beside the scripts: what CreateCluster took before.

    The keys are those of awslabs/awsome-distributed-training:1.architectures/
    5.sagemaker-hyperpod/LifecycleScripts/base-config/lifecycle_script.py.
    """
    entry = cluster.entry
    parameters: dict[str, Any] = {
        "version": "1.0.0",
        "workload_manager": "slurm",
        "controller_group": CONTROLLER,
        "worker_groups": [
            {"instance_group_name": name, "partition_name": group.partition or name}
            for name, group in entry.groups.items()
        ],
        "fsx_dns_name": parts.dns_name,
        "fsx_mountname": parts.mount_name,
    }
    if entry.login:
        parameters["login_group"] = LOGIN
    return parameters


def make_role_request(cluster: ClusterFile) -> dict[str, Any]:
    """CreateRole, of the role that nodes have."""
    return {
        "RoleName": cluster.role_name,
        "AssumeRolePolicyDocument": json.dumps(trust_document()),
        "Description": f"Nodes of the HyperPod cluster {cluster.name} in {cluster.region}",
        "Tags": cluster.tags,
    }


def make_file_system_request(cluster: ClusterFile, parts: ClusterParts) -> dict[str, Any]:
    """CreateFileSystem: FSx for Lustre in the nodes' subnet, and so in their zone."""
    storage = cluster.entry.storage
    return {
        "FileSystemType": "LUSTRE",
        "FileSystemTypeVersion": "2.15",
        "StorageCapacity": storage.capacity_gib,
        "StorageType": "SSD",
        "SubnetIds": [parts.subnet],
        "SecurityGroupIds": [parts.security_group],
        "LustreConfiguration": {
            "DeploymentType": "PERSISTENT_2",
            "PerUnitStorageThroughput": storage.throughput,
            "DataCompressionType": "LZ4",
        },
        "Tags": [*cluster.tags, {"Key": PART_TAG, "Value": "storage"}],
    }


def security_group_rules(group: str) -> dict[str, dict[str, Any]]:
    """Call -> its parameters: all traffic from the group to itself, in and out.

    EFA asks for both: an outgoing rule for all addresses is not enough (Amazon EC2 user guide, "Get
    started with EFA"). Lustre's ports are among it.
    """
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    return {
        "AuthorizeSecurityGroupIngress": {"GroupId": group, "IpPermissions": itself},
        "AuthorizeSecurityGroupEgress": {"GroupId": group, "IpPermissions": itself},
    }
