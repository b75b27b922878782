"""The parts of a cluster outside EC2: bucket, role, file system, scripts, and the cluster."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from slipway.cluster.documents import (
    CLUSTER_TAG,
    ClusterParts,
    Permission,
    lifecycle_scripts,
    make_cluster_request,
    make_file_system_request,
    make_role_request,
    policy_text,
)
from slipway.cluster.hyperpod.cluster_part import ClusterPart, ClusterSite
from slipway.cluster.hyperpod.refusals import file_errors
from slipway.core import SlipwayError

NO_BUCKET = ("404", "NoSuchBucket")
_NO_ROLE = ("NoSuchEntity",)
NO_CLUSTER = ("ResourceNotFound",)
SCRIPTS = "lifecycle/"


def bucket_parts(site: ClusterSite) -> list[ClusterPart]:
    """The bucket of the scripts: private, and of this account only."""
    bucket, account = site.cluster.bucket, site.account

    def find() -> str | None:
        owner = site.cluster.entry.account
        there = account.call(
            "s3", "HeadBucket", NO_BUCKET, Bucket=bucket, ExpectedBucketOwner=owner
        )
        return bucket if there is not None else None

    def make() -> str:
        place: dict[str, Any] = {}
        if site.cluster.region != "us-east-1":  # which S3 does not take as a constraint
            place["CreateBucketConfiguration"] = {"LocationConstraint": site.cluster.region}
        account.call("s3", "CreateBucket", ("BucketAlreadyOwnedByYou",), Bucket=bucket, **place)
        return bucket

    def remove(name: str) -> None:
        for entry in account.pages("s3", "ListObjectsV2", "Contents", Bucket=name):
            account.call("s3", "DeleteObject", Bucket=name, Key=entry["Key"])
        account.call("s3", "DeleteBucket", Bucket=name)

    blocked = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )

    def find_block() -> str | None:
        missing = (*NO_BUCKET, "NoSuchPublicAccessBlockConfiguration")
        there = account.call("s3", "GetPublicAccessBlock", missing, Bucket=bucket)
        return bucket if there and there["PublicAccessBlockConfiguration"] == blocked else None

    def make_block() -> str:
        account.call(
            "s3",
            "PutPublicAccessBlock",
            Bucket=bucket,
            PublicAccessBlockConfiguration=blocked,
        )
        return bucket

    return [
        ClusterPart("bucket", f"bucket {bucket}", find, make, remove, costs="by what it holds"),
        ClusterPart("bucket-access", "the bucket is not public", find_block, make_block),
    ]


def role_parts(
    site: ClusterSite, policies: Mapping[str, Sequence[Permission]]
) -> list[ClusterPart]:
    """The nodes' role and its policies; a policy that is another one is put again."""
    account, role = site.account, site.cluster.role_name

    def find() -> str | None:
        there = account.call("iam", "GetRole", _NO_ROLE, RoleName=role)
        return role if there else None

    def make() -> str:
        account.call("iam", "CreateRole", **make_role_request(site.cluster))
        return role

    def remove(name: str) -> None:
        for policy in account.pages("iam", "ListRolePolicies", "PolicyNames", RoleName=name):
            account.call("iam", "DeleteRolePolicy", RoleName=name, PolicyName=policy)
        account.call("iam", "DeleteRole", RoleName=name)

    def policy_part(policy: str, permissions: Sequence[Permission]) -> ClusterPart:
        text = policy_text(permissions)

        def find_policy() -> str | None:
            there = account.call("iam", "GetRolePolicy", _NO_ROLE, RoleName=role, PolicyName=policy)
            if there is None:
                return None
            document = there["PolicyDocument"]
            if isinstance(document, str):
                document = json.loads(urllib.parse.unquote(document))
            return policy if document == json.loads(text) else None

        def put_policy() -> str:
            account.call(
                "iam", "PutRolePolicy", RoleName=role, PolicyName=policy, PolicyDocument=text
            )
            return policy

        return ClusterPart(f"policy-{policy}", f"policy {policy}", find_policy, put_policy)

    return [
        ClusterPart("role", f"role {role}", find, make, remove),
        *(policy_part(name, permissions) for name, permissions in policies.items()),
    ]


def storage_parts(site: ClusterSite) -> list[ClusterPart]:
    """FSx for Lustre; nothing where the file names one."""
    storage = site.cluster.entry.storage
    if storage.file_system is not None:
        site.ids["storage"] = storage.file_system
        return []

    def find() -> str | None:
        for system in site.account.pages("fsx", "DescribeFileSystems", "FileSystems"):
            if {tag["Key"]: tag["Value"] for tag in system.get("Tags", ())}.get(
                CLUSTER_TAG
            ) == site.cluster.name:
                return str(system["FileSystemId"])
        return None

    def make() -> str:
        parts = ClusterParts(site.ids["nodes-subnet"], site.ids["security-group"], "", "")
        with file_errors(site.cluster, ("storage",)):
            made = site.account.call(
                "fsx", "CreateFileSystem", **make_file_system_request(site.cluster, parts)
            )
        return str(made["FileSystem"]["FileSystemId"])

    def ready(identifier: str) -> bool:
        system = describe_file_system(site, identifier)
        state = system["Lifecycle"]
        if state in ("FAILED", "DELETING", "MISCONFIGURED"):
            words = system.get("FailureDetails", {}).get("Message", "AWS gives no reason")
            raise SlipwayError(
                f"the file system is {state.lower()}: {words}",
                where=identifier,
                cure="Once it is gone, `./inv cluster.up` makes another one.",
            )
        return bool(state == "AVAILABLE")

    def remove(identifier: str) -> None:
        if describe_file_system(site, identifier)["Lifecycle"] != "DELETING":
            site.account.call("fsx", "DeleteFileSystem", FileSystemId=identifier)

    title = f"FSx for Lustre, {storage.capacity_gib} GiB at {storage.throughput} MB/s a TiB"
    return [
        ClusterPart(
            "storage", title, find, make, remove, ready, costs="by the hour; holds your data"
        )
    ]


def describe_file_system(site: ClusterSite, identifier: str) -> Any:
    """FSx's record of one file system."""
    answer = site.account.call("fsx", "DescribeFileSystems", FileSystemIds=[identifier])
    return answer["FileSystems"][0]


def made_parts(site: ClusterSite) -> ClusterParts:
    """The ids that CreateCluster needs, once all of them are there."""
    system = describe_file_system(site, site.ids["storage"])
    return ClusterParts(
        site.ids["nodes-subnet"],
        site.ids["security-group"],
        system["DNSName"],
        system["LustreConfiguration"]["MountName"],
    )


def script_parts(site: ClusterSite) -> list[ClusterPart]:
    """The lifecycle scripts in the bucket; one that is another one is put again."""

    def script_part(name: str) -> ClusterPart:
        key = f"{SCRIPTS}{name}"

        def text() -> bytes:
            return lifecycle_scripts(site.cluster, made_parts(site))[name].encode()

        def find() -> str | None:
            answer = site.account.call(
                "s3", "GetObject", ("NoSuchKey", *NO_BUCKET), Bucket=site.cluster.bucket, Key=key
            )
            if not answer or not {"storage", "nodes-subnet"} <= site.ids.keys():
                return None
            return key if site.account.read_body("s3", "GetObject", answer) == text() else None

        def make() -> str:
            site.account.call("s3", "PutObject", Bucket=site.cluster.bucket, Key=key, Body=text())
            return key

        return ClusterPart(f"script-{name}", f"s3://{site.cluster.bucket}/{key}", find, make)

    names = lifecycle_scripts(site.cluster, ClusterParts.unmade(site.cluster))
    return [script_part(name) for name in names]


def cluster_part(site: ClusterSite) -> ClusterPart:
    """The cluster itself, with its nodes."""
    cluster, account = site.cluster, site.account

    def find() -> str | None:
        there = account.call("sagemaker", "DescribeCluster", NO_CLUSTER, ClusterName=cluster.name)
        return str(there["ClusterArn"]) if there else None

    def make() -> str:
        request = make_cluster_request(cluster, made_parts(site))
        with file_errors(cluster, request=request):
            made = account.call("sagemaker", "CreateCluster", **request.parameters)
        return str(made["ClusterArn"])

    def ready(_arn: str) -> bool:
        there = account.call("sagemaker", "DescribeCluster", ClusterName=cluster.name)
        status = there["ClusterStatus"]
        if status in ("Failed", "Deleting"):
            words = there.get("FailureMessage") or "AWS gives no reason"
            raise SlipwayError(
                f"the cluster is {status.lower()}: {words}",
                where=cluster.name,
                cure=f"`./inv cluster.status {cluster.path}` has its events; `./inv cluster.delete "
                f"{cluster.path}` removes it, and `./inv cluster.up {cluster.path}` begins again.",
            )
        return bool(status == "InService")

    def remove(_arn: str) -> None:
        there = account.call("sagemaker", "DescribeCluster", ClusterName=cluster.name)
        if there["ClusterStatus"] != "Deleting":
            account.call("sagemaker", "DeleteCluster", ClusterName=cluster.name)

    return ClusterPart(
        "cluster", f"HyperPod cluster {cluster.name}", find, make, remove, ready,
        costs="by the hour, for every node",
    )  # fmt: skip
