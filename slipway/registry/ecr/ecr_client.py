"""The edge to boto3: clients with an explicit region, and its errors as ours."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from slipway.registry.errors import (
    NoCredentialsError,
    RegistryError,
    RepositoryMissingError,
    WrongAccountError,
    not_authorised_error,
    throttled_error,
    unavailable_error,
)

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

# boto3 takes a third of a second to import: only commands that talk to AWS pay for it.

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
        "RequestExpired",
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
_PRINCIPAL = re.compile(r"arn:[a-z-]+:(?:iam|sts)::(\d{12}):\S+")
_lock = threading.Lock()  # making clients of one session from two threads is not safe (boto3 guide)


def connect_ecr(
    region: str, *, endpoint_url: str | None = None, fips: bool = False, dual_stack: bool = False
) -> ECRClient:
    """An ECR client for a region; throttling is retried by botocore's standard mode."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 8},
        connect_timeout=10,
        read_timeout=30,
        use_fips_endpoint=fips or None,
        use_dualstack_endpoint=dual_stack or None,
    )
    with _lock, aws_errors("an ECR client", region):
        client: ECRClient = boto3.client(
            "ecr", region_name=region, endpoint_url=endpoint_url, config=config
        )
    return client


def caller_account(region: str) -> str:
    """The account that the credentials belong to. STS allows this to everyone."""
    import boto3
    from botocore.config import Config

    with aws_errors("sts:GetCallerIdentity", region):
        with _lock:
            client = boto3.client(
                "sts", region_name=region, config=Config(retries={"mode": "standard"})
            )
        return client.get_caller_identity()["Account"]


@contextlib.contextmanager
def aws_errors(action: str, where: str, account: str | None = None) -> Iterator[None]:
    """Turn botocore's errors into ours.

    `action` is what was tried ("ecr:CreateRepository"), `account` the one whose registry it was:
    a denial to a principal of another account is then told as that.
    """
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        said = error.response.get("Error", {})
        code, text = said.get("Code", ""), said.get("Message") or str(error)
        raise client_error(action, where, code, text, account) from error
    except (
        aws.NoCredentialsError,
        aws.PartialCredentialsError,
        aws.CredentialRetrievalError,
        aws.ProfileNotFound,
        aws.SSOError,
        aws.TokenRetrievalError,
    ) as error:
        raise NoCredentialsError(
            f"there are no AWS credentials for {action} ({error})", where=where, cure=_LOGIN
        ) from error
    except (aws.HTTPClientError, aws.ConnectionError) as error:
        raise unavailable_error(where, str(error)) from error
    except aws.BotoCoreError as error:
        raise RegistryError(f"{action} failed: {error}", where=where) from error


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
    if code in _DENIED:
        return access_denied(where, text, account)
    if code in _THROTTLED:
        return throttled_error(where, f"{action}: {text}")
    if code == "RepositoryNotFoundException":
        return RepositoryMissingError(
            f"the repository does not exist ({text})",
            where=where,
            cure="Check account, region and name.",
        )
    return RegistryError(f"{action} failed: {code}: {text}", where=where)


def access_denied(where: str, text: str, account: str | None) -> RegistryError:
    """A denial: by whom is known from the principal that AWS names in its message."""
    principal = _PRINCIPAL.search(text)
    if principal and account and principal[1] != account:
        return wrong_account(where, principal[1], account, text)
    return not_authorised_error(where, text)


def wrong_account(where: str, caller: str, account: str, text: str) -> WrongAccountError:
    """The credentials are of `caller`, the registry is of `account`."""
    return WrongAccountError(
        f"the credentials belong to account {caller}, the registry to account {account} ({text})",
        where=where,
        cure="Choose the profile of that account (AWS_PROFILE), name your own account's registry, "
        f"or have {account} allow {caller} in the repository's policy.",
    )
