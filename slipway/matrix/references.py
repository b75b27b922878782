"""Image URIs and the hosts to log in to, both from one function so that they cannot differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from slipway.core import UsageError, did_you_mean
from slipway.matrix.model import Registry

LOCAL_REGISTRY = "slipway.local"
"""Stands where a base has no registry; the engine finds such a base by its name alone."""

IMAGE_REGISTRY = "image.slipway.local"
"""The same for a base that is an image of the matrix: pruned as that is."""


@dataclass(frozen=True)
class ImageUri:
    """Where one image is.

    `reference` is what a FROM or a pull takes; `login_host` is the host whose credentials that
    pull needs, None where it needs none.
    """

    host: str
    reference: str
    login_host: str | None


@cache
def region_suffixes() -> Mapping[str, str]:
    """Region -> DNS suffix of its partition, for every region that botocore lists.

    Read from botocore's own `data/partitions.json` (what its endpoint rules use): importing
    `botocore.session` for the same answer costs a quarter of a second on every command.
    Pseudo regions ("aws-global") are left out: no registry lives there.
    """
    return {region: suffix for region, (suffix, _) in _regions().items()}


def region_partition(region: str) -> str:
    """What ARNs of a region that AWS has begin with: aws, aws-cn, aws-us-gov."""
    return _regions()[region][1]


@cache
def _regions() -> Mapping[str, tuple[str, str]]:
    data = json.loads((files("botocore") / "data" / "partitions.json").read_text("utf-8"))
    return {
        region: (partition["outputs"]["dnsSuffix"], partition["id"])
        for partition in data["partitions"]
        for region in partition["regions"]
        if re.match(partition["regionRegex"], region)
    }


def ecr_host(account: str, region: str) -> str:
    """The private ECR host of an account in a region.

    Raises UsageError for an account that is not twelve digits and for a region that AWS does not
    have.
    """
    if not re.fullmatch(r"[0-9]{12}", account):
        raise UsageError(
            f"{account!r} is not an AWS account: an account is a string of twelve digits",
            cure="keep leading zeros; `aws sts get-caller-identity` prints your own",
        )
    suffix = region_suffixes().get(region)
    if suffix is None:
        raise UsageError(
            f"AWS has no region {region!r}{did_you_mean(region, region_suffixes())}",
            cure="regions come from the installed botocore; a newer one may know newer regions",
        )
    return f"{account}.dkr.ecr.{region}.{suffix}"


def image_uri(
    registry: Registry,
    region: str | None,
    repository: str,
    tag: str,
    digest: str | None = None,
) -> ImageUri:
    """Where `repository:tag` of a registry is: in a region, or (region None) on its public mirror.

    `digest` ("sha256:...") pins the reference. Raises UsageError where the registry is not in the
    region, or has no public mirror of the repository; the message names the regions that do.
    """
    if registry.host is not None:
        host, _, prefix = registry.host.partition("/")
        path = f"{prefix}/{repository}" if prefix else repository
        login = host if registry.login else None
    elif region is None:
        host, path, login = _public(registry, repository)
    else:
        account = registry.accounts.get(region)
        if account is None:
            raise _not_in_region(registry, region, f"{repository}:{tag}")
        host = login = ecr_host(account, region)
        path = repository
    pinned = f"@{digest}" if digest else ""
    return ImageUri(host, f"{host}/{path}:{tag}{pinned}", login)


def is_public(registry: Registry, repository: str) -> bool:
    """Whether the registry's public mirror serves this repository without a login."""
    return registry.public is not None and repository in registry.public_repositories


def _public(registry: Registry, repository: str) -> tuple[str, str, None]:
    if registry.public is None or not is_public(registry, repository):
        carries = ", ".join(registry.public_repositories)
        mirror = f"its public mirror carries only {carries}" if carries else "it has none"
        raise UsageError(
            f"{repository} of registry {registry.name!r} is on no public mirror ({mirror})",
            cure=f"name a region to use its private ECR: {_listed(registry.accounts)}",
        )
    host, _, prefix = registry.public.partition("/")
    return host, f"{prefix}/{repository}" if prefix else repository, None


def _not_in_region(registry: Registry, region: str, image: str) -> UsageError:
    near = did_you_mean(region, registry.accounts)
    if region in registry.without:
        what = f"registry {registry.name!r} is in {region}, but no source lists {image} there"
        return UsageError(what, cure=f"it is in {_listed(registry.accounts)}")
    if region in region_suffixes():
        what = f"registry {registry.name!r} does not exist in {region}"
    else:
        what = f"AWS has no region {region!r}{near}"
    return UsageError(what, cure=f"registry {registry.name!r} is in {_listed(registry.accounts)}")


def _listed(regions: Iterable[str]) -> str:
    return ", ".join(sorted(regions))
