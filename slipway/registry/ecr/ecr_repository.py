"""A repository of our own in ECR: created once, with immutable tags, and looked after."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from slipway.core import UsageError
from slipway.registry.ecr.aws_boundary import aws_errors, tolerate, wrong_account
from slipway.registry.ecr.ecr_client import caller_account
from slipway.registry.ecr.policies import lifecycle_policy, merged_policy, pull_statements
from slipway.registry.errors import (
    NotAuthorisedError,
    RegistryError,
    RepositoryMissingError,
)

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.literals import ImageTagMutabilityType
    from mypy_boto3_ecr.type_defs import CreateRepositoryRequestTypeDef, RepositoryTypeDef


class _Owner(TypedDict, total=False):
    registryId: str


_KNOWN_S, _POLL_S = 60.0, 0.2
_EXCEPTIONS_MAX = 5  # ECR user guide, "Preventing image tags from being overwritten"


@dataclass(frozen=True)
class EcrRepository:
    """A repository as ECR describes it. `mutability` is ECR's word (IMMUTABLE_WITH_EXCLUSION)."""

    name: str
    uri: str
    account: str
    mutability: str
    created: bool
    warnings: tuple[str, ...] = ()  # what could not be set up, for a person


def ensure_repository(
    client: ECRClient,
    name: str,
    *,
    consumers: Sequence[str] = (),
    sagemaker: bool = False,
    alias_patterns: Sequence[str] = (),
    account: str | None = None,
) -> EcrRepository:
    """The repository, created where the registry has none of this name.

    A new one scans on push and has immutable tags, but for `alias_patterns` (at most 5, `*` is the
    wildcard) where the API knows such exceptions; untagged images expire. One that exists keeps
    its settings. `consumers` (accounts) and the SageMaker service are allowed to pull, in both
    cases; other statements of the policy stay. `account` is the registry's, None for the caller's
    own.

    Raises WrongAccountError where it would have to be created in another account, UsageError for
    bad arguments, and RegistryError's subclasses.
    """
    _check(consumers, alias_patterns)
    edge = _Edge(client, name, account)
    description = edge.describe()
    created = description is None
    warnings: list[str] = []
    if description is None:
        description = edge.create(alias_patterns)
        if alias_patterns and description["imageTagMutability"] == "IMMUTABLE":
            warnings.append("this region's ECR has no movable tags: aliases cannot be promoted")
        try:
            edge.put_lifecycle(lifecycle_policy())
        except NotAuthorisedError as error:  # a right that a pusher can do without
            warnings.append(f"nothing will expire: {error.what}")
    if consumers or sagemaker:
        edge.allow(pull_statements(client.meta.partition, consumers, sagemaker))
    return EcrRepository(
        name,
        description["repositoryUri"],
        description["registryId"],
        description["imageTagMutability"],
        created,
        tuple(warnings),
    )


def may_tag_move(client: ECRClient, name: str, tag: str, account: str | None = None) -> bool:
    """Whether the repository's settings let a tag move to another image.

    True as well where there is no such repository: one that is made by a push has them right.
    """
    settings = _Edge(client, name, account).describe()
    if settings is None:
        return True
    mutability = settings["imageTagMutability"]
    filters = settings.get("imageTagMutabilityExclusionFilters") or []
    excepted = any(fnmatch.fnmatchcase(tag, rule["filter"]) for rule in filters)
    return mutability.startswith("MUTABLE") != (excepted and mutability.endswith("_WITH_EXCLUSION"))


def remove_ecr_images(
    client: ECRClient, name: str, digests: Sequence[str], account: str | None = None
) -> None:
    """Remove images with all their tags, one after the other. Raises RegistryError's subclasses."""
    edge = _Edge(client, name, account)
    for digest in digests:
        edge.remove(digest)


class _Edge:
    """The calls about one repository."""

    def __init__(self, client: ECRClient, name: str, account: str | None) -> None:
        self._client = client
        self._name = name
        self._account = account
        self._owner: _Owner = {"registryId": account} if account else {}

    def _errors(self, action: str) -> contextlib.AbstractContextManager[None]:
        where = f"{self._account or ''} {self._client.meta.region_name} {self._name}".strip()
        return aws_errors(action, where, self._account)

    def describe(self) -> RepositoryTypeDef | None:
        with (
            self._errors("ecr:DescribeRepositories"),
            tolerate("RepositoryNotFoundException"),
        ):
            answer = self._client.describe_repositories(repositoryNames=[self._name], **self._owner)
            return answer["repositories"][0]
        return None

    def create(self, alias_patterns: Sequence[str]) -> RepositoryTypeDef:
        if self._account is not None:
            caller = caller_account(self._client.meta.region_name)
            if caller != self._account:
                raise wrong_account(self._name, caller, self._account, "it does not exist there")
        self._make(alias_patterns)
        # "When the CreateRepository returns, it just implies ECR had finished sanity check and is
        # working on repo creation" (AWS, in hashicorp/terraform-provider-aws#3849).
        end = time.monotonic() + _KNOWN_S
        while (known := self.describe()) is None:
            if time.monotonic() > end:
                raise RepositoryMissingError(
                    f"ECR made it, and does not know it after {_KNOWN_S:.0f} s",
                    where=self._name,
                    cure="Run the same again.",
                )
            time.sleep(_POLL_S)
        return known

    def _make(self, alias_patterns: Sequence[str]) -> None:
        with (
            self._errors("ecr:CreateRepository"),
            tolerate("RepositoryAlreadyExistsException"),  # another push was faster
        ):
            if alias_patterns:
                # Where the API does not know exceptions, all tags are immutable.
                with tolerate("InvalidParameterException"):
                    self._create("IMMUTABLE_WITH_EXCLUSION", alias_patterns)
                    return
            self._create("IMMUTABLE", ())

    def _create(self, mutability: ImageTagMutabilityType, movable: Sequence[str]) -> None:
        request: CreateRepositoryRequestTypeDef = {
            "repositoryName": self._name,
            "imageTagMutability": mutability,
            "imageScanningConfiguration": {"scanOnPush": True},
        }
        if movable:
            request["imageTagMutabilityExclusionFilters"] = [
                {"filterType": "WILDCARD", "filter": pattern} for pattern in movable
            ]
        self._client.create_repository(**request)

    def remove(self, digest: str) -> None:
        with self._errors("ecr:BatchDeleteImage"):
            answer = self._client.batch_delete_image(
                repositoryName=self._name, imageIds=[{"imageDigest": digest}], **self._owner
            )
        for failure in answer.get("failures", []):
            if failure.get("failureCode") != "ImageNotFound":
                raise RegistryError(
                    f"ECR does not remove it: {failure.get('failureReason')}",
                    where=f"{self._name}@{digest}",
                )

    def put_lifecycle(self, policy: dict[str, Any]) -> None:
        with self._errors("ecr:PutLifecyclePolicy"):
            self._client.put_lifecycle_policy(
                repositoryName=self._name, lifecyclePolicyText=json.dumps(policy), **self._owner
            )

    def allow(self, statements: Sequence[dict[str, Any]]) -> None:
        old = None
        with (
            self._errors("ecr:GetRepositoryPolicy"),
            tolerate("RepositoryPolicyNotFoundException"),
        ):
            answer = self._client.get_repository_policy(repositoryName=self._name, **self._owner)
            old = json.loads(answer["policyText"])
        new = merged_policy(old, statements)
        if new != old:
            with self._errors("ecr:SetRepositoryPolicy"):
                self._client.set_repository_policy(
                    repositoryName=self._name, policyText=json.dumps(new), **self._owner
                )


def _check(consumers: Sequence[str], alias_patterns: Sequence[str]) -> None:
    for account in consumers:
        if not re.fullmatch(r"\d{12}", account):
            raise UsageError(f"{account!r} is not an AWS account: twelve digits")
    if len(alias_patterns) > _EXCEPTIONS_MAX:
        raise UsageError(
            f"ECR takes at most {_EXCEPTIONS_MAX} patterns of tags that move, "
            f"not {len(alias_patterns)}"
        )
