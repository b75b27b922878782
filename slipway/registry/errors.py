"""What can go wrong between us and a registry, one class for each thing a person does about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

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


class ServerFaultError(RegistryUnavailableError):
    """The registry answers, with a status of 500 until our patience ends: it cannot do this one
    thing, or nothing at all."""


class RepositoryMissingError(RegistryError):
    """The registry has no repository of this name."""


class ImageMissingError(RegistryError):
    """The repository is there; this tag, manifest or blob is not."""


class ImmutableTagError(RegistryError):
    """The tag exists with another image, and tags do not move."""


class ClockError(RegistryError):
    """This machine's clock is wrong, so that what it signs or checks is of another time."""


class ManifestError(RegistryError):
    """A manifest or blob is not what its digest, its media type or the image says it is."""


ENTRY_FAULTS = (ServerFaultError, ManifestError, NotAuthorisedError)
"""What can be wrong with one tag or repository of a registry that is otherwise well."""


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
    reply = registry_reply(body)
    text = reply.message or f"HTTP status {status}"
    if reply.code == "NAME_UNKNOWN":
        return RepositoryMissingError(
            f"the repository does not exist ({text})",
            where=where,
            cure="Check account, region and name; `inv push` creates its own repositories.",
        )
    if reply.code == "TAG_INVALID" or "immutable" in text:
        return immutable_tag_error(where, text)
    if reply.code == "TOOMANYREQUESTS" or status == 429:
        return throttled_error(where, text)
    if status == 404:
        return ImageMissingError("the registry does not have it", where=where)
    if reply.code == "DENIED" or status == 403:
        return not_authorised_error(where, text)
    return RegistryError(
        f"the registry refused the request: {status} {reply.code} {text}", where=where
    )


def not_authorised_error(where: str, text: str) -> NotAuthorisedError:
    """403: known, and not allowed."""
    return NotAuthorisedError(
        f"not allowed to do this ({text})",
        where=where,
        cure="The principal needs ecr:GetAuthorizationToken and the pull (or push) actions on this "
        "repository; `aws sts get-caller-identity` tells who it is.",
    )


def throttled_error(where: str, text: str, cure: str | None = None) -> ThrottledError:
    """429 to the end; `cure` is for what is no push or pull."""
    return ThrottledError(
        f"too many requests ({text})",
        where=where,
        cure=cure
        or "Wait and run it again: what was uploaded is not sent again. Fewer pushes at once "
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


def unavailable_error(where: str, text: str, cure: str | None = None) -> RegistryUnavailableError:
    """Nobody answers, or only with server errors.

    `cure` None: the way there can be the cause, and nothing more is known.
    """
    local = is_loopback(where.partition("/")[0])
    return RegistryUnavailableError(
        f"the registry cannot be used now ({text})",
        where=where,
        cure="`inv registry.up` starts the local registry."
        if local
        else cure or "Check the network and the proxy settings, or try later.",
    )


SERVER_TROUBLE = "It is the server's own trouble, or a proxy's on the way: try later."
"""The cure for an answer of 500 and more: the network has brought it."""


def web_page_error(where: str, page: str) -> RegistryUnavailableError:
    """Somebody else answers: a captive portal, a proxy that wants a login, a web server."""
    return RegistryUnavailableError(
        f"a web page answers in its place ({page_title(page) or 'without a title'})",
        where=where,
        cure="Check the host's name. A captive portal or a proxy that wants a login answers like "
        "this, too: a browser on this network shows it.",
    )


def is_web_page(text: str) -> bool:
    """Whether an answer's text is HTML."""
    return (
        re.match(r"(?is)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype html|html)\b", text)
        is not None
    )


def page_title(page: str) -> str:
    """The title of an HTML page, in one line."""
    match = re.search(r"(?is)<title[^>]*>(.{0,200}?)</title", page)
    return " ".join(match[1].split()) if match else ""


def clock_error(where: str, text: str, ahead: timedelta | None) -> ClockError:
    """`ahead`: how far this machine's clock is before the server's, None where nobody knows."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    wrong = "wrong"
    if ahead is not None:
        way = "ahead of" if ahead > timedelta(0) else "behind"
        wrong = f"{clock_span(ahead)} {way} the server's"
    return ClockError(
        f"this machine's clock is {wrong}: it says {now} UTC ({text})",
        where=where,
        cure="Set the clock (`timedatectl set-ntp true`, or `date`); the login itself may be good.",
    )


def clock_span(span: timedelta) -> str:
    """A length of time in words: "2 h 5 min", "40 s"."""
    seconds = round(abs(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    parts = [(days, "days"), (hours, "h"), (rest // 60, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
