"""The IAM actions that a call to AWS's API needs, and what the operator's policy allows of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from slipway.cluster.documents.cluster_file import read_cluster_file
from slipway.cluster.documents.operator_policy import operator_permissions
from tests.support.cluster_samples import SMALL_CLUSTER

#: What IAM calls a service that botocore has another name for.
_PREFIXES = {"service-quotas": "servicequotas", "sagemaker-runtime": "sagemaker"}
#: Calls whose action has another name (service authorization reference, each service's page).
_RENAMED = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}
#: Calls that everybody may make.
_FREE = {"sts:GetCallerIdentity"}
#: What a call needs beside its own action: tags in the call, roles that are given, first use.
_BROUGHT_ALONG = {
    "ec2:CreateVpc": {"ec2:CreateTags"},
    "iam:CreateRole": {"iam:TagRole"},
    "fsx:CreateFileSystem": {"fsx:TagResource", "iam:CreateServiceLinkedRole"},
    "ecr-public:GetAuthorizationToken": {"sts:GetServiceBearerToken"},
    "sagemaker:CreateCluster": {"iam:PassRole", "sagemaker:AddTags"},  # test_passed_roles.py
}
PROTOCOL_ACTIONS = frozenset(
    f"ecr:{action}"
    for action in (
        *("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"),
        *("InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "PutImage"),
        *("ListImages", "ListImageReferrers"),
    )
)
"""What the registry's own protocol asks for: no call of botocore's (ECR user guide, "Pushing")."""


def actions_of(call: str) -> set[str]:
    """The IAM actions of a call, service:Operation in botocore's names."""
    if call in _FREE:
        return set()
    service, _, name = call.partition(":")
    action = f"{_PREFIXES.get(service, service)}:{name}"
    return {_RENAMED.get(action, action)} | _BROUGHT_ALONG.get(action, set())


@cache
def operator_actions() -> frozenset[str]:
    """All that the policy of whoever runs Slipway allows."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "cluster.yaml")
        path.write_text(SMALL_CLUSTER)
        policies = operator_permissions(read_cluster_file(path), ["team/*"])
    return frozenset(a for policy in policies.values() for p in policy for a in p.actions)
