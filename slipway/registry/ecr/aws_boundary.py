"""botocore's errors, and whatever else it lets out, as ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from slipway.core import SlipwayError, error_text
from slipway.registry.ecr.aws_settings import AwsSettings
from slipway.registry.errors import (
    NoCredentialsError,
    NotAuthorisedError,
    RegistryError,
    RegistryUnavailableError,
    RepositoryMissingError,
    WrongAccountError,
    clock_error,
    is_web_page,
    not_authorised_error,
    throttled_error,
    web_page_error,
)
from slipway.registry.http_settings import proxy_variable

_LOGIN = "Log in (`aws sso login`, AWS_PROFILE, or a role of the machine) and run it again."
_BAD_LOGIN = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationErrorException",
        "UnauthorizedOperation",
    }
)
_THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
_LIMIT = re.compile(r"LimitExceeded(Exception)?$|^TooManyBuckets$")
"""ResourceLimitExceeded (SageMaker), ServiceLimitExceeded (FSx), AddressLimitExceeded (EC2),
LimitExceeded (IAM), AccountLimitExceededException (CodeBuild) and their kin."""
_PRINCIPAL = re.compile(r"arn:[a-z-]+:(?:iam|sts)::(\d{12}):\S+")
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired"})
_CLOCK_WORDS = re.compile(r"(?i)signature (expired|not yet current)|request has expired")
_STAMP = re.compile(r"\b(\d{8}T\d{6})Z")

_TRY_AGAIN = "Wait a minute and run it again: it goes on with what is there."


class PromptError(Exception):
    """Something wants an answer typed in, and there is no terminal."""


@contextlib.contextmanager
def aws_errors(action: str, where: str, account: str | None = None) -> Iterator[None]:
    """Raise RegistryError's subclasses for whatever boto3 and botocore raise inside.

    `action` is what was tried ("ecr:CreateRepository"), `account` the one whose registry it was:
    a denial to a principal of another account is then told as that. An answer that lacks what it
    should have (KeyError) is not AWS's.
    """
    from botocore import exceptions as aws

    try:
        yield
    except SlipwayError:
        raise
    except aws.ClientError as error:
        AwsSettings.read()  # so that no secret of a file is shown
        answer = getattr(error, "response", None) or {"Error": {"Message": error_text(error)}}
        raise answer_error(answer, action, where, account) from error
    except Exception as error:
        raise aws_failure(error, action, where) from error


@contextlib.contextmanager
def tolerate(*codes: str) -> Iterator[None]:
    """Go on after the block where AWS refuses with one of these codes (of its API reference).

    By the code, not by a client's exception classes: botocore makes those at their first use, and
    two threads that use one client may each hold classes that the other's errors are not of.
    """
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        if error.response.get("Error", {}).get("Code") not in codes:
            raise


def answer_error(
    response: Mapping[str, Any], action: str, where: str, account: str | None
) -> RegistryError:
    """The typed error for a refusal of the AWS API."""
    error = response.get("Error", {})
    code, text = str(error.get("Code", "")), str(error.get("Message") or "it gives no reason")
    if is_web_page(text):
        return web_page_error(where, text)
    if code in _CLOCK_CODES or _CLOCK_WORDS.search(text):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return clock_error(where, f"{action}: {text}", _clock_ahead(text, headers.get("date")))
    if code in _THROTTLED and (
        retries := response.get("ResponseMetadata", {}).get("RetryAttempts")
    ):
        text += f"; tried {retries + 1} times"
    return client_error(action, where, code, text, account)


def _clock_ahead(text: str, date: str | None) -> timedelta | None:
    """How far our clock is before AWS's: by its answer's Date, else by the times in its words."""
    try:
        if date:
            return datetime.now(timezone.utc) - parsedate_to_datetime(date)
    except (ValueError, TypeError):
        pass  # a header that is no date: the words have times of their own
    stamps = [datetime.strptime(stamp, "%Y%m%dT%H%M%S") for stamp in _STAMP.findall(text)[:3]]
    # "signed at is now earlier than limit (AWS's time - 5 min.)" (IAM user guide, "Troubleshooting
    # Signature Version 4 signing").
    return stamps[0] - stamps[-1] if len(stamps) > 1 else None


def aws_failure(error: Exception, action: str, where: str) -> RegistryError:
    """The typed error for what botocore raises before AWS has answered, or at a strange answer."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    on_the_way = isinstance(error, aws.HTTPClientError | aws.ConnectionError)
    sent = on_the_way and type(error) is not aws.HTTPClientError  # which wraps whatever else came
    settings = AwsSettings.read()
    text = " ".join(error_text(error).split())  # after the secrets of files are known
    fault = settings.fault(logins=not sent)
    if fault is None and not on_the_way:
        fault = settings.named_in(text)
    if fault is None and not isinstance(error, aws.BotoCoreError | KeyError | ResponseParserError):
        fault = settings.login_source()
    if isinstance(error, PromptError | EOFError):
        return NoCredentialsError(
            f"profile {settings.profile} wants a code typed in (mfa_serial), and there is no "
            "terminal to ask on",
            where=where,
            cure="Fetch a session where there is one (`aws sts get-session-token`), and give it in "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.",
        )
    if fault is not None:
        # Without a login what is public can still be had.
        kind = RegistryError if on_the_way else NoCredentialsError
        return kind(f"{action} failed: {text}; {fault}", where=where, cure=fault.cure)
    if isinstance(error, _login_errors()):
        return NoCredentialsError(
            f"there are no AWS credentials for {action} ({text})", where=where, cure=_LOGIN
        )
    if on_the_way:
        return _unreached(f"{action}: {text}", where, settings)
    if isinstance(error, KeyError | IndexError | TypeError | ResponseParserError):
        return RegistryUnavailableError(
            f"{action}: the answer is not AWS's ({text})",
            where=where,
            cure="A captive portal, a proxy or an emulator answers in its place: look at "
            "AWS_ENDPOINT_URL and HTTPS_PROXY.",
        )
    return RegistryError(
        f"{action} failed: {text}",
        where=where,
        cure="`aws configure list` shows what is set, and where.",
    )


def _login_errors() -> tuple[type[Exception], ...]:
    from botocore import exceptions as aws

    return (
        aws.NoCredentialsError,
        aws.PartialCredentialsError,
        aws.CredentialRetrievalError,
        aws.ProfileNotFound,
        aws.SSOError,
        aws.TokenRetrievalError,
        aws.NoAuthTokenError,
        aws.UnauthorizedSSOTokenError,
    )


def _unreached(text: str, where: str, settings: AwsSettings) -> RegistryError:
    """No answer: the words name what is in the way, as far as it is known."""
    cure = "Check the network, or try later."
    if proxy := proxy_variable("https://amazonaws.com/", all_proxy=False):
        cure = f"Check the network and the proxy that {proxy} names, or try later."
    if endpoint := next(
        (v for k, v in settings.values.items() if k.startswith("endpoint_url")), None
    ):
        cure = f"Check {endpoint.name} (from {endpoint.origin}), or try later."
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate" in text:
        if "not yet valid" in text:
            return clock_error(where, text, None)
        cure = (
            "Behind a proxy with its own certificate authority, name its bundle in AWS_CA_BUNDLE. "
            "Where it says expired, look at this machine's clock, too."
        )
    return RegistryUnavailableError(f"AWS cannot be reached ({text})", where=where, cure=cure)


def client_error(
    action: str, where: str, code: str, text: str, account: str | None = None
) -> RegistryError:
    """The typed error for a code and message of the AWS API."""
    if code in _BAD_LOGIN:
        return NoCredentialsError(
            f"AWS does not accept the credentials for {action} ({text})",
            where=where,
            cure=f"{_LOGIN} In an opt-in region, check that the account has it enabled.",
        )
    if code in _DENIED and not account and not _is_ecr(action):
        return NotAuthorisedError(
            f"not allowed to do this ({action}: {text})",
            where=where,
            cure="A policy of the principal has to allow it, and none to deny it; "
            "`aws sts get-caller-identity` tells who it is.",
        )
    if code in _DENIED:
        return access_denied(where, text, account)
    if code in _THROTTLED:
        return throttled_error(where, f"{action}: {text}", None if _is_ecr(action) else _TRY_AGAIN)
    if code == "RepositoryNotFoundException":
        return RepositoryMissingError(
            f"the repository does not exist ({text})",
            where=where,
            cure="Check account, region and name.",
        )
    cure = f"The code is explained in AWS's reference of {action}."
    if _LIMIT.search(code):
        cure = "Ask for more in Service Quotas, or make do with fewer, or in another region."
    return RegistryError(
        f"{action} failed: {f'{code}: ' if code else ''}{text}", where=where, cure=cure
    )


def access_denied(where: str, text: str, account: str | None) -> RegistryError:
    """A denial: by whom is known from the principal that AWS names in its message."""
    principal = _PRINCIPAL.search(text)
    if principal and account and principal[1] != account:
        return wrong_account(where, principal[1], account, text)
    return not_authorised_error(where, text)


def _is_ecr(action: str) -> bool:
    """Cures are for pushes and pulls there, and for whatever it was elsewhere."""
    return action.startswith(("ecr:", "an ECR client"))


def wrong_account(where: str, caller: str, account: str, text: str) -> WrongAccountError:
    """The credentials are of `caller`, the registry is of `account`."""
    return WrongAccountError(
        f"the credentials belong to account {caller}, the registry to account {account} ({text})",
        where=where,
        cure="Choose the profile of that account (AWS_PROFILE), name your own account's registry, "
        f"or have {account} allow {caller} in the repository's policy.",
    )
