"""What whoever runs Slipway is allowed: the calls that its code makes, and what these bring along.

Tests record every call that the code makes, and read those out of it that stand in its source;
both are held to this, both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slipway.cluster.documents.cluster_file import CLUSTER_TAG, ClusterFile
from slipway.cluster.documents.job_permissions import job_permissions
from slipway.cluster.documents.permissions import PULL, Permission

_REFERENCE = "docs.aws.amazon.com/service-authorization/latest/reference"
_CALLS = "the calls in slipway/cluster/hyperpod"
_FSX = "docs.aws.amazon.com/fsx/latest/LustreGuide/using-service-linked-roles.html"
_ECR = "docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html"


def operator_permissions(
    cluster: ClusterFile, repositories: Sequence[str]
) -> dict[str, list[Permission]]:
    """Policy name -> statements, for the person or the machine that makes a cluster and its jobs.

    Two policies, as IAM allows 6144 characters for one.
    """
    return {
        "operator": [*_clusters(cluster), *_account(cluster), *_storage(cluster)],
        "operator-network": _network(cluster),
        "operator-jobs": [
            *job_permissions(cluster),
            *_images(cluster, repositories),
        ],
    }


def _clusters(cluster: ClusterFile) -> list[Permission]:
    return [
        Permission(
            "WorkOnClusters",
            (
                "sagemaker:CreateCluster",
                "sagemaker:UpdateCluster",
                "sagemaker:DeleteCluster",
                "sagemaker:DescribeCluster",
                "sagemaker:ListClusterNodes",
                "sagemaker:ListClusterEvents",
                "sagemaker:AddTags",
            ),
            (cluster.arn("sagemaker", "cluster/*"),),
            "`./inv cluster.up` and its siblings; a cluster's ARN has an id in place of its name, "
            "and its tags are put with the call",
            _CALLS,
        ),
        Permission(
            "OpenNodeShells",
            ("ssm:StartSession",),
            (
                cluster.arn("sagemaker", "cluster/*"),
                f"arn:{cluster.partition}:ssm:{cluster.region}:*:document/AWS-StartSSHSession",
            ),
            "`./inv cluster.shell`, and ssh through its --ssh-config",
            f"{_REFERENCE}/list_awssystemsmanager.html",
        ),
        Permission(
            "ReadQuotas",
            ("servicequotas:ListServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas"),
            ("*",),
            "the plan compares counts with quotas; the actions have no resources",
            _CALLS,
        ),
    ]


def _account(cluster: ClusterFile) -> list[Permission]:
    bucket = f"arn:{cluster.partition}:s3:::{cluster.bucket}"
    return [
        Permission(
            "WorkOnNodeRole",
            (
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListRolePolicies",
                "iam:PutRolePolicy",
                "iam:TagRole",
            ),
            (cluster.role_arn,),
            "the role of this cluster's nodes, and no other",
            _CALLS,
        ),
        Permission(
            "GiveNodeRole",
            ("iam:PassRole",),
            (cluster.role_arn,),
            "CreateCluster gives the role to the nodes; to SageMaker only",
            f"{_REFERENCE}/list_amazonsagemaker.html",
            {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
        Permission(
            "FirstUseOfServices",
            ("iam:CreateServiceLinkedRole",),
            (f"arn:{cluster.partition}:iam::{cluster.entry.account}:role/aws-service-role/*",),
            "an account's first file system and first cluster make their services' own roles",
            _FSX,
            {
                "StringLike": {
                    "iam:AWSServiceName": "*fsx.amazonaws.com",
                }
            },
        ),
        Permission(
            "WorkOnBucket",
            (
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:ListBucket",
                "s3:GetBucketPublicAccessBlock",
                "s3:PutBucketPublicAccessBlock",
            ),
            (bucket,),
            "the bucket of the lifecycle scripts",
            _CALLS,
        ),
        Permission(
            "WorkOnScripts",
            ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
            (f"{bucket}/*",),
            "the lifecycle scripts, and the lease that keeps a second run out",
            _CALLS,
        ),
    ]


def _storage(cluster: ClusterFile) -> list[Permission]:
    systems = cluster.arn("fsx", "file-system/*")
    return [
        Permission(
            "MakeFileSystem",
            ("fsx:CreateFileSystem", "fsx:TagResource"),
            (systems,),
            "FSx for Lustre, with the cluster's tag",
            _CALLS,
        ),
        Permission(
            "DescribeFileSystems",
            ("fsx:DescribeFileSystems",),
            ("*",),
            "looked for by tag; the action lists, and has no resources then",
            f"{_REFERENCE}/list_amazonfsx.html",
        ),
        Permission(
            "RemoveFileSystem",
            ("fsx:DeleteFileSystem",),
            (systems,),
            "`./inv cluster.delete`; only what carries the cluster's tag",
            _CALLS,
            _tagged(cluster),
        ),
    ]


def _network(cluster: ClusterFile) -> list[Permission]:
    """Making in the region, removing by tag."""
    kinds = (
        *("elastic-ip", "internet-gateway", "natgateway", "route-table", "security-group"),
        *("subnet", "vpc", "vpc-endpoint"),
    )
    things = tuple(cluster.arn("ec2", f"{kind}/*") for kind in kinds)
    return [
        Permission(
            "LookAtNetworks",
            (
                "ec2:DescribeAddresses",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInternetGateways",
                "ec2:DescribeNatGateways",
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcEndpoints",
                "ec2:DescribeVpcs",
            ),
            ("*",),
            "parts are looked for by tag; EC2's Describe actions have no resources",
            f"{_REFERENCE}/list_amazonec2.html",
        ),
        Permission(
            "MakeNetwork",
            (
                "ec2:AllocateAddress",
                "ec2:AssociateRouteTable",
                "ec2:AttachInternetGateway",
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:CreateInternetGateway",
                "ec2:CreateNatGateway",
                "ec2:CreateRoute",
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSubnet",
                "ec2:CreateTags",
                "ec2:CreateVpc",
                "ec2:CreateVpcEndpoint",
                "ec2:ReplaceRoute",
            ),
            things,
            "the network of the cluster (network: make), with its tags",
            "the calls in slipway/cluster/hyperpod/network_parts.py",
        ),
        Permission(
            "RemoveNetwork",
            (
                "ec2:DeleteInternetGateway",
                "ec2:DeleteNatGateway",
                "ec2:DeleteRouteTable",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteSubnet",
                "ec2:DeleteVpc",
                "ec2:DeleteVpcEndpoints",
                "ec2:DetachInternetGateway",
                "ec2:DisassociateRouteTable",
                "ec2:ReleaseAddress",
            ),
            things,
            "`./inv cluster.delete`; only what carries the cluster's tag",
            "the calls in slipway/cluster/hyperpod/network_parts.py",
            _tagged(cluster),
        ),
    ]


def _images(cluster: ClusterFile, repositories: Sequence[str]) -> list[Permission]:
    own = tuple(cluster.arn("ecr", f"repository/{name}") for name in repositories)
    return [
        Permission(
            "LogInToRegistry",
            ("ecr:GetAuthorizationToken",),
            ("*",),
            "every push and pull begins with it; the action has no resources",
            _ECR,
        ),
        Permission(
            "LogInToPublicRegistry",
            ("ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"),
            ("*",),
            "pulls from public.ecr.aws with a login are throttled less; the actions have no "
            "resources",
            "docs.aws.amazon.com/AmazonECR/latest/public/public-registry-auth.html",
        ),
        Permission(
            "PushImages",
            (
                *PULL,
                "ecr:InitiateLayerUpload",
                "ecr:UploadLayerPart",
                "ecr:CompleteLayerUpload",
                "ecr:PutImage",
                "ecr:ListImages",
                "ecr:ListImageReferrers",
            ),
            own,
            "a push and what it reads back, over the registry's own protocol",
            _ECR,
        ),
        Permission(
            "WorkOnRepositories",
            (
                "ecr:CreateRepository",
                "ecr:DescribeRepositories",
                "ecr:PutLifecyclePolicy",
                "ecr:GetRepositoryPolicy",
                "ecr:SetRepositoryPolicy",
                "ecr:BatchDeleteImage",
            ),
            own,
            "`./inv push` makes a repository that is not there; `./inv registry.prune` removes",
            "the calls in slipway/registry/ecr",
        ),
    ]


def _tagged(cluster: ClusterFile) -> Mapping[str, Mapping[str, str]]:
    return {"StringEquals": {f"aws:ResourceTag/{CLUSTER_TAG}": cluster.name}}
