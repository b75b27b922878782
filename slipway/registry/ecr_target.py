"""Amazon ECR: a target in an account and region, its credentials, its repositories."""

from __future__ import annotations

import os
from collections.abc import Sequence

from slipway.matrix import ecr_host
from slipway.registry.distribution import Repository
from slipway.registry.ecr import (
    EcrRepository,
    caller_account,
    connect_ecr,
    ensure_repository,
    may_tag_move,
    remove_ecr_images,
)
from slipway.registry.errors import ImmutableTagError
from slipway.registry.logins import private_token
from slipway.registry.target import Target


def find_ecr_target(
    region: str, account: str | None = None, *, endpoint_url: str | None = None
) -> Target:
    """The private registry of an account (by default the credentials' own) in a region.

    The host comes from botocore's partition data. Where the ECR API is somewhere else
    (`endpoint_url` or AWS_ENDPOINT_URL_ECR: an emulator, a VPC endpoint), the API itself says which
    host serves the images. Raises UsageError for regions that do not exist, NoCredentialsError.
    """
    account = account or caller_account(region)
    host = ecr_host(account, region)
    if endpoint_url or os.environ.get("AWS_ENDPOINT_URL_ECR"):
        host = private_token(region, host, endpoint_url=endpoint_url).host
    return Target(f"ecr-{account}-{region}", "ecr", host, region, account)


def prepare_repository(
    target: Target,
    repository: str,
    *,
    consumers: Sequence[str] = (),
    sagemaker: bool = False,
    alias_patterns: Sequence[str] = (),
) -> EcrRepository | None:
    """`ensure_repository` on a target; None for targets that create repositories by themselves.

    Raises WrongAccountError rather than create it in the caller's account where the target is
    another's.
    """
    if target.kind != "ecr" or target.region is None:
        return None
    return ensure_repository(
        connect_ecr(target.region),
        repository,
        consumers=consumers,
        sagemaker=sagemaker,
        alias_patterns=alias_patterns,
        account=target.account,
    )


def check_alias_can_move(target: Target, repository: str, alias: str) -> None:
    """Raises ImmutableTagError where the repository's settings hold an alias as they hold a build's
    tag. Before anything is put: an alias that is put once there would stay for ever.
    """
    if target.kind != "ecr" or target.region is None:
        return
    client = connect_ecr(target.region)
    if not may_tag_move(client, repository, alias, target.account):
        raise ImmutableTagError(
            "all tags of this repository are immutable, and an alias moves",
            where=f"{target.host}/{repository}:{alias}",
            cure="Have its tag mutability be IMMUTABLE_WITH_EXCLUSION with a filter that fits the "
            "alias (aws ecr put-image-tag-mutability); a push makes new repositories so.",
        )


def remove_images(target: Target, repository: Repository, digests: Sequence[str]) -> None:
    """Take manifests, with all their tags, out of a repository of a target, in this order.

    ECR removes by its own API alone. What is gone already is fine.
    """
    if target.kind == "ecr" and target.region is not None:
        client = connect_ecr(target.region)
        remove_ecr_images(client, repository.path, digests, target.account)
        return
    for digest in digests:
        repository.client.delete_manifest(repository.path, digest)
