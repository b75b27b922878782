"""How a registry lets us in: Basic (ECR) or Bearer tokens (Docker Hub, public.ecr.aws, quay)."""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import requests

from slipway.core import Credentials, CredentialsFor
from slipway.registry.distribution.answers import origin_of, resolve_location
from slipway.registry.distribution.transport import RegistryTransport
from slipway.registry.errors import (
    NoCredentialsError,
    RegistryError,
    login_refused,
    refusal_error,
)
from slipway.registry.hosts import is_loopback, is_private_address

BASIC_SECONDS = 60.0
"""How long a Basic login is used before the credentials are asked again: Logins, which keeps them,
renews an ECR token before its end, and a credential helper is not started for every request."""

TOKEN_SECONDS = 60.0
"""Life of a token whose service does not say it ("Token Authentication Specification")."""

_LONGEST_TOKEN = 12 * 3600.0
_HEADER_LIMIT = 4096  # bytes of a challenge that are read
_TOKEN_SERVICES = {"registry-1.docker.io": "auth.docker.io"}
"""Token services on a host that is no parent of the registry's."""

TRIES = 5  # without a login, with that at hand, with fresh ones: others may see theirs end between


@runtime_checkable
class RefreshableCredentials(Protocol):
    """Credentials that are kept between uses and can be told that a registry refused them."""

    def __call__(self, host: str) -> Credentials | None:
        """Credentials for a host, perhaps kept ones."""

    def forget(self, host: str) -> None:
        """Ask anew at the next use."""


def forget_credentials(credentials: CredentialsFor, host: str) -> None:
    """Have the next credentials for the host be fresh, where they are kept at all."""
    if isinstance(credentials, RefreshableCredentials):
        credentials.forget(host)


@dataclass(frozen=True)
class Challenge:
    """What a 401 asks for (RFC 9110, 11.6.1; distribution: "Token Authentication")."""

    scheme: str  # lower case
    parameters: dict[str, str]


_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def parse_challenge(header: str) -> Challenge:
    """The scheme and parameters of a WWW-Authenticate header that has one challenge."""
    scheme, _, rest = header[:_HEADER_LIMIT].strip().partition(" ")
    pairs = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(rest)
    }
    return Challenge(scheme.lower(), pairs)


def is_expired(response: requests.Response) -> bool:
    """Whether the registry says that our login was good once: ECR does so with a 403."""
    return response.status_code == 403 and b"expired" in response.content


@dataclass(frozen=True)
class _Login:
    """An Authorization header, the challenge that it answers, and when to make a newer one."""

    header: str
    challenge: Challenge
    renew_at: float  # time.monotonic()


class RegistryLogin:
    """Authorization headers for one host, one for each scope.

    A header is renewed shortly before its end and not when it is refused: a piece of a blob that is
    under way when the token ends would have to be sent again.
    """

    def __init__(self, transport: RegistryTransport, credentials: CredentialsFor) -> None:
        self._transport = transport
        self._credentials = credentials
        self._logins: dict[str, _Login] = {}
        self._lock = threading.Lock()

    def header(self, scope: str) -> str | None:
        """The header to send; None until the registry has asked for one."""
        with self._lock:
            login = self._logins.get(scope)
            if login is not None and time.monotonic() >= login.renew_at:
                try:
                    login = self._log_in(login.challenge, scope)
                except RegistryError:
                    # The old one is perhaps good for a while; where it is not, the registry says
                    # so and `answer` tells why there is no new one.
                    return login.header
                self._logins[scope] = login
            return login.header if login else None

    def answer(self, response: requests.Response, scope: str, sent: str | None) -> None:
        """Have a new header ready for `scope` after `sent` was refused.

        A refusal of a header makes kept credentials be forgotten first. Raises NoCredentialsError
        where there is nothing (else) to say.
        """
        with self._lock:
            kept = self._logins.get(scope)
            if (kept.header if kept else None) != sent:
                return  # another thread has been here meanwhile
            if sent is not None:
                forget_credentials(self._credentials, self._transport.host)
            challenge = parse_challenge(response.headers.get("WWW-Authenticate", "Basic"))
            login = self._log_in(challenge, scope)
            if login.header == sent:
                raise self.refused()
            self._logins[scope] = login

    def refused(self) -> RegistryError:
        """The error for a login that is not accepted."""
        credentials = self._credentials(self._transport.host)
        return login_refused(self._transport.host, credentials.username if credentials else None)

    def _log_in(self, challenge: Challenge, scope: str) -> _Login:
        now = time.monotonic()
        if challenge.scheme == "bearer":
            token, seconds = self._token(challenge, scope)
            return _Login(f"Bearer {token}", challenge, now + seconds - min(30.0, seconds / 4))
        host = self._transport.host
        credentials = self._credentials(host)
        if credentials is None:
            raise login_refused(host, None)
        if self._transport.base.startswith("http:") and not is_loopback(host):
            raise NoCredentialsError(
                "the registry asks for a login over plain http, which anyone on the way can read",
                where=host,
                cure="Use the registry over https.",
            )
        return _Login(_basic(credentials), challenge, now + BASIC_SECONDS)

    def _token(self, challenge: Challenge, scope: str) -> tuple[str, float]:
        """A token and its life in seconds, from the service that the challenge names."""
        host = self._transport.host
        base = self._transport.base
        realm = resolve_location(base, base, challenge.parameters.get("realm", ""))
        credentials = self._credentials_at(realm)
        # A registry's own words for what it protects, but for a mount, which needs two scopes.
        scopes = scope.split() if " " in scope else challenge.parameters.get("scope", scope)
        asked: dict[str, str | list[str]] = {"scope": scopes}
        if "service" in challenge.parameters:
            asked["service"] = challenge.parameters["service"]
        basic = _basic(credentials) if credentials else None
        response = self._transport.patiently(
            lambda: self._transport.once("GET", realm, authorization=basic, params=asked), realm
        )
        if response.status_code == 401:
            raise self._token_refused(realm, credentials)
        if response.status_code != 200:
            raise refusal_error(response.status_code, response.content, where=realm)
        try:
            answer = response.json()
            token = str(answer.get("token") or answer["access_token"])
            seconds = answer.get("expires_in") or TOKEN_SECONDS
        except (ValueError, LookupError, AttributeError, RecursionError) as error:
            raise RegistryError(
                "the token service answered without a token", where=realm
            ) from error
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError("the token service gave no usable token", where=host)
        if not isinstance(seconds, int | float) or not 0 < seconds < _LONGEST_TOKEN:
            seconds = TOKEN_SECONDS
        return token, float(seconds)

    def _credentials_at(self, realm: str) -> Credentials | None:
        """What to tell a token service: the registry's login only where it is the registry's own.

        A registry can name any realm. Its login goes to its own host, to a parent domain of it
        (registry.gitlab.com, gitlab.com), and for Docker Hub to Docker's service; to any other host
        only the login that the user has for that host. Without one a token is asked for anonymously
        which is enough to pull what is public.
        """
        service, own = origin_of(realm), origin_of(self._transport.base)
        if service[0] == "http" and not is_private_address(service[1]):
            return None
        parent = (
            service[0] == "https"
            and service[1].count(".") >= 1
            and own[1].endswith(f".{service[1]}")
        )
        if service == own or parent or _TOKEN_SERVICES.get(own[1]) == service[1]:
            return self._credentials(self._transport.host)
        return self._credentials(urlsplit(realm).netloc)

    def _token_refused(self, realm: str, credentials: Credentials | None) -> NoCredentialsError:
        host = self._transport.host
        service = urlsplit(realm).netloc
        if credentials is None and origin_of(realm) != origin_of(self._transport.base):
            return NoCredentialsError(
                f"the registry wants its login to go to another host, {service}, and a login goes "
                "to its own host alone",
                where=host,
                cure=f"Where that host is trusted: docker login {service}",
            )
        return login_refused(host, credentials.username if credentials else None)


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.secret}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
