"""Credentials for registries, derived from the hosts in use: one login for each."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

from slipway.core import Credentials, Project
from slipway.registry import ecr
from slipway.registry.docker_logins import docker_login
from slipway.registry.errors import NoCredentialsError, NotAuthorisedError
from slipway.registry.hosts import PUBLIC_ECR, EcrHost, parse_ecr_host
from slipway.registry.local import local_registry_login
from slipway.registry.target import Target

MARGIN = timedelta(minutes=5)
"""A token that ends sooner is not used for something new."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Token:
    """An ECR authorization token and the registry host that it came with."""

    credentials: Credentials
    expires_at: datetime
    host: str

    def usable(self, now: datetime) -> bool:
        """Whether it may be kept for another use.

        One whose end lies in the past when it is new (emulators say 2015) has an unknown lifetime:
        never usable again, so that each use asks anew.
        """
        return self.expires_at - MARGIN > now


class Logins:
    """CredentialsFor of all registries that Slipway knows. Safe to share by threads.

    A private ECR host names account and region itself; `targets` add hosts that do not (an
    emulator's), `project` the local registry with its own login. A token is kept until shortly
    before its end. public.ecr.aws is anonymous unless AWS lets us have a token; for all other hosts
    `docker login` counts.
    """

    def __init__(self, targets: Iterable[Target] = (), project: Project | None = None) -> None:
        self._project = project
        self._targets = {t.host: t for t in targets if t.kind == "ecr" and t.region}
        self._tokens: dict[str, Token] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str) -> Credentials | None:
        """Credentials for a host. Raises NoCredentialsError and the other RegistryErrors."""
        with self._lock:
            token = self._tokens.get(host)
            if token is None or not token.usable(datetime.now(timezone.utc)):
                token = self._ask(host)
            if token is None:
                return None
            self._tokens[host] = token
            return token.credentials

    def forget(self, host: str) -> None:
        """Ask anew at the next use: the registry refused the token."""
        with self._lock:
            self._tokens.pop(host, None)

    def _ask(self, host: str) -> Token | None:
        if host == PUBLIC_ECR:
            return _public_token()
        target, parsed = self._targets.get(host), parse_ecr_host(host)
        if target is not None and target.region is not None:
            return private_token(target.region, host)
        if parsed is not None:
            return private_token(parsed.region, host, parsed)
        own = local_registry_login(self._project, host) if self._project else None
        return _reread(own, host) or _emulated(host) or _reread(docker_login(host), host)


def credentials_for(
    targets_or_hosts: Iterable[Target | str] = (), project: Project | None = None
) -> Logins:
    """Credentials for any host, asked for at the moment of use.

    Hosts need no mention; targets do only where their host does not tell the region. `project` is
    the one whose local registry is meant, without which that is a host as any other.
    """
    return Logins((t for t in targets_or_hosts if isinstance(t, Target)), project)


def private_token(
    region: str, where: str, host: EcrHost | None = None, endpoint_url: str | None = None
) -> Token:
    """A new token for the private registries of a region.

    One token opens every registry of the region that the principal may use, AWS's Deep Learning
    Containers included (ECR API reference, GetAuthorizationToken: `registryIds` is deprecated).
    """
    client = ecr.connect_ecr(
        region,
        endpoint_url=endpoint_url,
        fips=host is not None and host.fips,
        dual_stack=host is not None and host.dual_stack,
    )
    with ecr.aws_errors("ecr:GetAuthorizationToken", where):
        data = client.get_authorization_token()["authorizationData"][0]
        return Token(
            _decoded(data["authorizationToken"]),
            data["expiresAt"],
            urlsplit(data["proxyEndpoint"]).netloc,
        )


def _public_token() -> Token | None:
    """A token for public.ecr.aws, which is faster with one; None where there is none to have."""
    try:
        if ecr.find_aws_credentials() is None:
            return None
        with ecr.aws_errors("ecr-public:GetAuthorizationToken", PUBLIC_ECR):
            # The only region of this API (ECR Public user guide, "Registry authentication").
            client = ecr.make_client("ecr-public", "us-east-1")
            answer = client.get_authorization_token()["authorizationData"]
            token = _decoded(answer["authorizationToken"])
            return Token(token, answer["expiresAt"], PUBLIC_ECR)
    except (NoCredentialsError, NotAuthorisedError):
        return None  # anonymous pulls need no rights


def _emulated(host: str) -> Token | None:
    """The token of an ECR emulator, where the environment names one and it serves this host."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region or not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    token = private_token(region, host)
    return token if token.host == host else None


def _reread(login: Credentials | None, host: str) -> Token | None:
    """Of a login that stands in files: nobody says how long it lasts, so it is read at each use."""
    return Token(login, datetime.now(timezone.utc), host) if login else None


def _decoded(token: str) -> Credentials:
    username, _, secret = base64.b64decode(token).decode("ascii").partition(":")
    return Credentials(username, secret)
