"""HTTP to one registry host: certificates, proxies, and patience with a busy or breaking server."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import NameResolutionError

from slipway.core import Event, OnEvent, silent
from slipway.registry.distribution.answers import (
    MOST_REDIRECTS,
    REDIRECTS,
    origin_of,
    read_answer,
    resolve_location,
)
from slipway.registry.distribution.retry import RetryPolicy, host_pause, retry_after
from slipway.registry.errors import (
    RegistryError,
    registry_reply,
    throttled_error,
    unavailable_error,
)
from slipway.registry.hosts import api_host, is_loopback

RETRIED = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
"""Statuses that a later try may turn into success; the set that crane retries
(google/go-containerregistry:pkg/v1/remote/options.go)."""

WORTH_SAYING_S = 1.0
"""A person who watches wants to know of a wait that is longer."""

TIMEOUT_S = (10.0, 60.0)  # to connect; between two bytes


class _Authorization(AuthBase):
    """The header as we made it; giving requests an `auth` also keeps ~/.netrc out of it."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


class RegistryTransport:
    """Requests to one registry host, tried again as the policy says.

    `insecure`: plain http; None means http for loopback hosts and https for all others, which is
    what dockerd does. Certificates come from REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE;
    proxies from the usual variables. Safe to use from several threads.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool | None = None,
        policy: RetryPolicy | None = None,
        on_event: OnEvent = silent,
    ):
        self.host = host
        self._on_event = on_event
        plain = is_loopback(host) if insecure is None else insecure
        self.base = f"{'http' if plain else 'https'}://{api_host(host)}"
        self.policy = policy or RetryPolicy()
        self._gate = host_pause(host)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()
            self._local = threading.local()

    def _session(self) -> requests.Session:
        # One session a thread: requests does not promise that a session may be shared.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.mount("https://", HTTPAdapter(max_retries=0))
            # No proxy stands between us and this machine; Go programs (dockerd) know that,
            # requests does not.
            session.trust_env = not is_loopback(self.host)
            # requests itself does not know SSL_CERT_FILE (psf/requests#2899).
            bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
            session.verify = next(filter(None, map(os.environ.get, bundles)), True)
            with self._lock:
                self._sessions.append(session)
            self._local.session = session
        return session

    def once(
        self,
        method: str,
        url: str,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | list[str]] | None = None,
        body: bytes | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """One try. Raises requests' own exceptions, and RegistryError for answers without end.

        A GET is redirected as often as registries do it; the login goes to the origin of `url` and
        to no other. With `stream` the body of a success is the caller's to read; all other bodies
        are read here, as far as any registry needs them.
        """
        target = url if "://" in url else f"{self.base}{url}"
        first = target
        for _ in range(MOST_REDIRECTS + 1):
            own = origin_of(target) == origin_of(first)
            response = self._session().request(
                method,
                target,
                headers={"Accept-Encoding": "identity", **(headers or {})},
                params=dict(params or {}) if target == first else {},
                data=body,
                auth=_Authorization(authorization if own else None),
                stream=True,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
            self._gate.down = False
            location = response.headers.get("Location")
            redirected = response.status_code in REDIRECTS and method in ("GET", "HEAD")
            if not redirected or location is None:
                if not (stream and response.status_code in (200, 206)):
                    response._content = read_answer(response, self.host)
                    response._content_consumed = True  # type: ignore[attr-defined]
                return response
            response.close()
            target = resolve_location(self.base, target, location)
        raise RegistryError(f"redirects more than {MOST_REDIRECTS} times", where=self.host)

    def is_own(self, url: str) -> bool:
        """Whether a URL is this registry's: its login may go there."""
        return origin_of(url) == origin_of(self.base)

    def resolve(self, requested: str, location: str) -> str:
        """The URL of an answer's Location. Raises RegistryError for places not to go to."""
        absolute = requested if "://" in requested else f"{self.base}{requested}"
        return resolve_location(self.base, absolute, location)

    def patiently(self, tried: Callable[[], requests.Response], where: str) -> requests.Response:
        """The answer of `tried`, called again while the host is busy, broken or cut off.

        Raises ThrottledError or RegistryUnavailableError when patience ends; an answer of
        any other status is the caller's to judge.
        """
        failures = 0
        attempts = 1 if self._gate.down else self.policy.attempts
        while True:
            self._gate.wait()
            asked: float | None = None
            try:
                response = tried()
            except requests.exceptions.RequestException as error:
                failure = _broken(error, where)
                lost = isinstance(error, requests.exceptions.ConnectionError)
                last = not _may_pass(error)
            else:
                if response.status_code not in RETRIED:
                    return response
                failure, asked = _refused(response, where)
                lost = last = False
            failures += 1
            if asked is not None and asked > self.policy.obey:
                raise type(failure)(
                    f"{failure.what}; it asks for a wait of {asked:.0f} s, and "
                    f"{self.policy.obey:.0f} s is the longest that is waited",
                    where=where,
                    cure="Run it again after that time: what was uploaded is not sent again.",
                ) from failure
            if last or failures >= attempts:
                self._gate.down = lost
                raise failure
            self.pause(failures, asked)

    def pause(self, failures: int, asked: float | None = None) -> None:
        """Wait as the policy says after so many failures; `asked` is the host's Retry-After."""
        seconds = self.policy.delay(failures, asked)
        if seconds >= WORTH_SAYING_S:
            why = "as it asks" if asked else "after a failure"
            text = f"waiting {seconds:.0f} s for {self.host}, {why}"
            self._on_event(Event("notice", f"registry {self.host}", "wait", text))
        if asked is not None:
            self._gate.hold(seconds)
        else:
            time.sleep(seconds)


def _refused(response: requests.Response, where: str) -> tuple[RegistryError, float | None]:
    with contextlib.closing(response):
        said = registry_reply(response.content).message or response.reason or ""
    text = f"{response.status_code} {said}".strip()
    asked = retry_after(response.headers.get("Retry-After"))
    if response.status_code == 429:
        return throttled_error(where, text), 0.0 if asked is None else asked
    return unavailable_error(where, text), asked


def _may_pass(error: requests.exceptions.RequestException) -> bool:
    """Whether a later try can succeed: not with a bad certificate, name, URL or proxy."""
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return False
    if isinstance(error, requests.exceptions.ConnectionError) and error.args:
        return not isinstance(getattr(error.args[0], "reason", None), NameResolutionError)
    return isinstance(
        error,
        requests.exceptions.ConnectionError
        | requests.exceptions.Timeout
        | requests.exceptions.ChunkedEncodingError,
    )


def _broken(error: requests.exceptions.RequestException, where: str) -> RegistryError:
    if isinstance(error, requests.exceptions.SSLError):
        return RegistryError(
            f"the server's certificate is not trusted ({transport_reason(error)})",
            where=where,
            cure="Behind a proxy with its own certificate authority, name its bundle in "
            "REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
        )
    return unavailable_error(where, transport_reason(error))


def transport_reason(error: BaseException) -> str:
    """The innermost words: requests wraps urllib3, which wraps the socket's error."""
    inner = getattr(error, "reason", None)
    causes = [inner, *reversed(error.args)]
    cause = next((part for part in causes if isinstance(part, BaseException)), None)
    if cause is not None:
        return transport_reason(cause)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # urllib3 puts the connection's own description before the words.
    return str(error).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
