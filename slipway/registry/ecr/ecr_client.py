"""The edge to boto3: one session, clients with an explicit region, and who is asking."""

from __future__ import annotations

import getpass
import sys
import threading
from typing import TYPE_CHECKING, Any

from slipway.core import remember_secret
from slipway.registry.ecr.aws_boundary import PromptError, aws_errors

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_ecr import ECRClient

# boto3 takes a third of a second to import: only commands that talk to AWS pay for it.

_lock = threading.Lock()  # making clients of one session from two threads is not safe (boto3 guide)


def aws_session() -> Session:
    """boto3's default session: one a process, so that a code is asked for once.

    To be used inside `aws_errors`. Its secrets are never shown from here on.
    """
    import boto3

    kept: Any = boto3.DEFAULT_SESSION
    if kept is None:
        boto3.setup_default_session()
        kept = boto3.DEFAULT_SESSION
        # botocore would read the code from whatever stdin is; it has no public place for this.
        resolver = kept._session.get_component("credential_provider")
        resolver.get_provider("assume-role")._prompter = _ask
    session: Session = kept
    return session


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise PromptError(prompt)
    return getpass.getpass(prompt)


def find_aws_credentials() -> str | None:
    """How botocore finds credentials here ("env", "iam-role"), None where there are none."""
    with aws_errors("ecr:GetAuthorizationToken", "AWS"), _lock:
        credentials = aws_session().get_credentials()
    return credentials.method if credentials else None


def make_client(service: str, region: str, **options: Any) -> Any:
    """A client of the session. To be used inside `aws_errors`."""
    with _lock:
        session = aws_session()
        credentials = session.get_credentials()
        if credentials is not None:
            frozen = credentials.get_frozen_credentials()
            for secret in (frozen.secret_key, frozen.token):
                remember_secret(secret or "")
        return session.client(service, region_name=region, **options)  # type: ignore[call-overload]


def connect_aws(service: str, region: str) -> Any:
    """A client of any of AWS's services, by its name in boto3. Raises SlipwayError."""
    with aws_errors(f"a client of {service}", region):
        return make_client(service, region)


def connect_ecr(
    region: str, *, endpoint_url: str | None = None, fips: bool = False, dual_stack: bool = False
) -> ECRClient:
    """An ECR client for a region; throttling is retried by botocore's standard mode."""
    with aws_errors("an ECR client", region):
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=10,
            read_timeout=30,
            use_fips_endpoint=fips or None,
            use_dualstack_endpoint=dual_stack or None,
        )
        client: ECRClient = make_client("ecr", region, endpoint_url=endpoint_url, config=config)
    return client


def caller_account(region: str) -> str:
    """The account that the credentials belong to. STS allows this to everyone."""
    with aws_errors("sts:GetCallerIdentity", region):
        from botocore.config import Config

        client = make_client("sts", region, config=Config(retries={"mode": "standard"}))
        return str(client.get_caller_identity()["Account"])
