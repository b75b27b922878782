"""How a registry lets us in: Basic (ECR) or Bearer tokens (Docker Hub, public.ecr.aws, quay)."""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import requests

from slipway.core import Credentials, CredentialsFor
from slipway.registry.distribution.transport import RegistryTransport
from slipway.registry.errors import RegistryError, login_refused, refusal_error

TRIES = 3  # without a login, with the login at hand, with a fresh one


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
    scheme, _, rest = header.strip().partition(" ")
    pairs = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(rest)
    }
    return Challenge(scheme.lower(), pairs)


def is_expired(response: requests.Response) -> bool:
    """Whether the registry says that our login was good once: ECR does so with a 403."""
    return response.status_code == 403 and b"expired" in response.content


class RegistryLogin:
    """Authorization headers for one host, one for each scope, kept until they are refused."""

    def __init__(self, transport: RegistryTransport, credentials: CredentialsFor) -> None:
        self._transport = transport
        self._credentials = credentials
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def header(self, scope: str) -> str | None:
        """The header to send; None until the registry has asked for one."""
        with self._lock:
            return self._headers.get(scope)

    def answer(self, response: requests.Response, scope: str, sent: str | None) -> None:
        """Have a new header ready for `scope` after `sent` was refused.

        A refusal of a header makes kept credentials be forgotten first. Raises NoCredentialsError
        where there is nothing (else) to say.
        """
        host = self._transport.host
        with self._lock:
            if self._headers.get(scope) != sent:
                return  # another thread has been here meanwhile
            if sent is not None:
                forget_credentials(self._credentials, host)
            credentials = self._credentials(host)
            challenge = parse_challenge(response.headers.get("WWW-Authenticate", "Basic"))
            if challenge.scheme == "bearer":
                header = f"Bearer {self._token(challenge, scope, credentials)}"
            elif credentials is None:
                raise login_refused(host, None)
            else:
                header = _basic(credentials)
            if header == sent:
                raise self.refused()
            self._headers[scope] = header

    def refused(self) -> RegistryError:
        """The error for a login that is not accepted."""
        credentials = self._credentials(self._transport.host)
        return login_refused(self._transport.host, credentials.username if credentials else None)

    def _token(self, challenge: Challenge, scope: str, credentials: Credentials | None) -> str:
        host = self._transport.host
        realm = challenge.parameters.get("realm", "")
        if self._transport.base.startswith("https:") and urlsplit(realm).scheme != "https":
            raise RegistryError(
                f"asks to send the login to {realm!r}, which is not https", where=host
            )
        asked = {"scope": challenge.parameters.get("scope", scope)}
        if "service" in challenge.parameters:
            asked["service"] = challenge.parameters["service"]
        basic = _basic(credentials) if credentials else None
        response = self._transport.patiently(
            lambda: self._transport.once("GET", realm, authorization=basic, params=asked), realm
        )
        if response.status_code == 401:
            raise login_refused(host, credentials.username if credentials else None)
        if response.status_code != 200:
            raise refusal_error(response.status_code, response.content, where=realm)
        try:
            answer = response.json()
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, LookupError, AttributeError) as error:
            raise RegistryError(
                "the token service answered without a token", where=realm
            ) from error


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.secret}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
