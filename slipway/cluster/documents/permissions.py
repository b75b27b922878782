"""What an IAM policy allows, statement by statement, each with its reason and its source. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slipway.cluster.documents.cluster_file import ClusterFile

PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
"""What a pull of an image needs (Amazon ECR user guide, "Private repository policies")."""

_GUIDE = "docs.aws.amazon.com/sagemaker/latest/dg"
_NODE_POLICY = f"{_GUIDE}/security-iam-awsmanpol-AmazonSageMakerClusterInstanceRolePolicy.html"
_NODE_ROLE = f"{_GUIDE}/sagemaker-hyperpod-prerequisites-iam.html"
_ECR = "docs.aws.amazon.com/AmazonECR/latest/userguide/security_iam_id-based-policy-examples.html"


@dataclass(frozen=True)
class Permission:
    """One statement. `reason` says what fails without it, `source` who says so."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason: str
    source: str
    condition: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def statement(self) -> dict[str, Any]:
        """As IAM takes it."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
        }
        if self.condition:
            statement["Condition"] = {key: dict(value) for key, value in self.condition.items()}
        return statement


def policy_document(permissions: Sequence[Permission]) -> dict[str, Any]:
    """The policy that allows them."""
    return {"Version": "2012-10-17", "Statement": [each.statement() for each in permissions]}


def policy_text(permissions: Sequence[Permission]) -> str:
    """The policy as IAM stores it: blanks count towards its limits."""
    return json.dumps(policy_document(permissions), separators=(",", ":"))


def trust_document() -> dict[str, Any]:
    """Who may take the nodes' role: SageMaker, and nobody else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }


def node_permissions(
    cluster: ClusterFile, repositories: Sequence[str], bases: Sequence[str]
) -> dict[str, list[Permission]]:
    """Policy name -> its statements, for the role that nodes have.

    `repositories` are those of the account that nodes pull from, `bases` the ARNs of AWS's own for
    nodes that build images, too. The first policy is AWS's managed one of that purpose, narrowed to
    this cluster's own log groups and bucket: the managed one reads every bucket of the account
    whose name starts with `sagemaker-`.
    """
    policies = {
        "agents": _agents(cluster),
        "network": _network(cluster),
        "pull": _pull(cluster, repositories, bases),
    }
    if cluster.entry.buckets:
        policies["data"] = _data(cluster)
    return policies


def _agents(cluster: ClusterFile) -> list[Permission]:
    partition, region, account = cluster.partition, cluster.region, cluster.entry.account
    group = f"arn:{partition}:logs:{region}:{account}:log-group:/aws/sagemaker/Clusters"
    bucket = f"arn:{partition}:s3:::{cluster.bucket}"
    owner = {"StringEquals": {"aws:ResourceAccount": account}}
    return [
        Permission(
            "WriteLogs",
            ("logs:PutLogEvents", "logs:CreateLogStream", "logs:DescribeLogStreams"),
            (f"{group}/{cluster.name}/*:log-stream:*",),
            "HyperPod's agent sends what the lifecycle scripts print",
            _NODE_POLICY,
        ),
        Permission(
            "MakeLogGroup",
            ("logs:CreateLogGroup",),
            (f"{group}/{cluster.name}/*",),
            "the first node makes the cluster's log group",
            _NODE_POLICY,
        ),
        Permission(
            "SendMetrics",
            ("cloudwatch:PutMetricData",),
            ("*",),
            "the health agent's metrics; the action has no resources, only namespaces",
            _NODE_POLICY,
            {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Clusters"}},
        ),
        Permission(
            "ListScripts",
            ("s3:ListBucket",),
            (bucket,),
            "a new node fetches the lifecycle scripts",
            _NODE_POLICY,
            owner,
        ),
        Permission(
            "ReadScripts",
            ("s3:GetObject",),
            (f"{bucket}/*",),
            "a new node fetches the lifecycle scripts",
            _NODE_POLICY,
            owner,
        ),
        Permission(
            "OpenShells",
            (
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ),
            ("*",),
            "shells on nodes go through Systems Manager; the actions have no resources",
            _NODE_POLICY,
        ),
    ]


def _network(cluster: ClusterFile) -> list[Permission]:
    interfaces = (
        f"arn:{cluster.partition}:ec2:{cluster.region}:{cluster.entry.account}:network-interface/*"
    )
    return [
        Permission(
            "JoinNetwork",
            (
                "ec2:CreateNetworkInterface",
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeVpcs",
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeSubnets",
                "ec2:DescribeSecurityGroups",
                "ec2:DetachNetworkInterface",
            ),
            ("*",),
            "SageMaker puts the nodes' interfaces into the network; AWS documents these for every "
            "resource, and the instances that they attach to belong to AWS's own account",
            _NODE_ROLE,
        ),
        Permission(
            "TagInterfaces",
            ("ec2:CreateTags",),
            (interfaces,),
            "SageMaker marks the interfaces that it makes",
            _NODE_ROLE,
        ),
    ]


def _pull(
    cluster: ClusterFile, repositories: Sequence[str], bases: Sequence[str]
) -> list[Permission]:
    place = f"arn:{cluster.partition}:ecr:{cluster.region}:{cluster.entry.account}:repository"
    permissions = [
        Permission(
            "LogIn",
            ("ecr:GetAuthorizationToken",),
            ("*",),
            "every pull begins with it; the action has no resources",
            _ECR,
        ),
        Permission(
            "PullOwn",
            PULL,
            tuple(f"{place}/{name}" for name in repositories),
            "nodes import the images that `inv push` put there; the lab allows every repository "
            "of every account",
            _ECR,
        ),
    ]
    if bases:
        permissions.append(
            Permission(
                "PullBases",
                PULL,
                tuple(bases),
                "`./inv build` on a node pulls the bases of versions.yaml (builds: true)",
                "versions.yaml, registries; AWS's accounts: aws/deep-learning-containers:"
                "docs/reference/region_availability.md",
            )
        )
    return permissions


def _data(cluster: ClusterFile) -> list[Permission]:
    buckets = [f"arn:{cluster.partition}:s3:::{name}" for name in cluster.entry.buckets]
    source = "s5cmd and the launcher: entrypoints/README.md"
    return [
        Permission(
            "ListData",
            ("s3:ListBucket",),
            tuple(buckets),
            "jobs look for data and for the newest checkpoint",
            source,
        ),
        Permission(
            "UseData",
            ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"),
            tuple(f"{bucket}/*" for bucket in buckets),
            "jobs read data and write checkpoints; nothing lets them delete",
            source,
        ),
    ]
