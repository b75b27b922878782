"""What can go wrong between us and a registry, one class for each thing a person does about it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from slipway.core import SlipwayError
from slipway.registry.hosts import is_loopback


class RegistryError(SlipwayError):
    """A registry, or the AWS API that looks after it, did not do what it was asked."""


class NoCredentialsError(RegistryError):
    """There are no credentials, or the ones given are not accepted: nobody knows who we are."""


class WrongAccountError(RegistryError):
    """The credentials are good, but they belong to another AWS account than the registry."""


class NotAuthorisedError(RegistryError):
    """The registry knows who we are and does not allow this."""


class ThrottledError(RegistryError):
    """The registry said "too many requests" until our patience ended."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached, or answers with server errors."""


class RepositoryMissingError(RegistryError):
    """The registry has no repository of this name."""


class ImageMissingError(RegistryError):
    """The repository is there; this tag, manifest or blob is not."""


class ImmutableTagError(RegistryError):
    """The tag exists with another image, and tags do not move."""


class ManifestError(RegistryError):
    """A manifest or blob is not what its digest, its media type or the image says it is."""


@dataclass(frozen=True)
class RegistryReply:
    """The first error of a registry's answer (OCI distribution specification, "Error Codes")."""

    code: str
    message: str


def registry_reply(body: bytes) -> RegistryReply:
    """What the body of a 4xx or 5xx answer says; empty strings where it is no such JSON."""
    try:
        first = json.loads(body)["errors"][0]
        return RegistryReply(str(first.get("code", "")), str(first.get("message") or ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return RegistryReply("", "")


def login_refused(host: str, username: str | None) -> NoCredentialsError:
    """Nobody knows who we are: `username` is None where we had nothing to say."""
    if username is None:
        return NoCredentialsError(
            "the registry asks for a login and there are no credentials for it",
            where=host,
            cure="For ECR, give AWS credentials (AWS_PROFILE, `aws sso login`, or a role); "
            f"for others: docker login {host}",
        )
    return NoCredentialsError(
        f"the registry does not accept the credentials of user {username}",
        where=host,
        cure="Fetch new ones; for ECR check that the AWS session has not expired "
        "(`aws sts get-caller-identity`).",
    )


def refusal_error(status: int, body: bytes, *, where: str) -> RegistryError:
    """The typed error for an answer that is neither success nor worth a new try.

    `where` is host/repository[:tag or @digest]. Codes are those of the OCI distribution
    specification; ECR puts its reasons into the message.
    """
    said = registry_reply(body)
    text = said.message or f"HTTP status {status}"
    if said.code == "NAME_UNKNOWN":
        return RepositoryMissingError(
            f"the repository does not exist ({text})",
            where=where,
            cure="Check account, region and name; `inv push` creates its own repositories.",
        )
    if said.code == "TAG_INVALID" or "immutable" in text:
        return immutable_tag_error(where, text)
    if said.code == "TOOMANYREQUESTS" or status == 429:
        return throttled_error(where, text)
    if status == 404:
        return ImageMissingError("the registry does not have it", where=where)
    if said.code == "DENIED" or status == 403:
        return not_authorised_error(where, text)
    return RegistryError(
        f"the registry refused the request: {status} {said.code} {text}", where=where
    )


def not_authorised_error(where: str, text: str) -> NotAuthorisedError:
    """403: known, and not allowed."""
    return NotAuthorisedError(
        f"not allowed to do this ({text})",
        where=where,
        cure="The principal needs ecr:GetAuthorizationToken and the pull (or push) actions on this "
        "repository; `aws sts get-caller-identity` tells who it is.",
    )


def throttled_error(where: str, text: str) -> ThrottledError:
    """429 to the end."""
    return ThrottledError(
        f"too many requests ({text})",
        where=where,
        cure="Wait and run it again: what was uploaded is not sent again. Fewer pushes at once "
        "or a raised ECR quota avoid it.",
    )


def immutable_tag_error(where: str, text: str) -> ImmutableTagError:
    """The tag is taken by another image."""
    return ImmutableTagError(
        f"the tag exists already with another image, and tags do not move ({text})",
        where=where,
        cure="Use the image that is there: it was built from the same inputs at another time. "
        "A changed image has a changed build id, and with it another tag.",
    )


def unavailable_error(where: str, text: str) -> RegistryUnavailableError:
    """Nobody answers, or only with server errors."""
    local = is_loopback(where.partition("/")[0])
    return RegistryUnavailableError(
        f"the registry cannot be used now ({text})",
        where=where,
        cure="`inv registry.up` starts the local registry."
        if local
        else "Check the network and the proxy settings, or try later.",
    )
