"""HTTP to one registry host: certificates, proxies, and patience with a busy or breaking server."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import requests
from requests.auth import AuthBase

from slipway.core import Event, OnEvent, silent
from slipway.registry.distribution.answers import (
    MOST_REDIRECTS,
    REDIRECTS,
    origin_of,
    read_answer,
    refuse_web_page,
    resolve_location,
)
from slipway.registry.distribution.connections import SILENCE_S, RegistryAdapter, sent_in_pieces
from slipway.registry.distribution.http_boundary import (
    http_failure,
    is_unknown_name,
    requests_errors,
    storage_failure,
    storage_refusal,
)
from slipway.registry.distribution.retry import RetryPolicy, host_pause, retry_after
from slipway.registry.errors import (
    SERVER_TROUBLE,
    RegistryError,
    ServerFaultError,
    clock_span,
    registry_reply,
    throttled_error,
    unavailable_error,
)
from slipway.registry.hosts import api_host, check_host, is_loopback
from slipway.registry.http_settings import REQUESTS_BUNDLES

RETRIED = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
"""Statuses that a later try may turn into success; the set that crane retries
(google/go-containerregistry:pkg/v1/remote/options.go)."""

WORTH_SAYING_S = 1.0
"""A person who watches wants to know of a wait that is longer."""

_LONGEST_SAID_S = 1e9  # a header may ask for a number that no calendar has

TIMEOUT_S = (10.0, SILENCE_S)  # to connect; between two bytes


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
        check_host(host)
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
            for scheme in ("http://", "https://"):
                session.mount(scheme, RegistryAdapter())
            # No proxy stands between us and this machine; Go programs (dockerd) know that,
            # requests does not.
            session.trust_env = not is_loopback(self.host)
            # requests itself does not know SSL_CERT_FILE (psf/requests#2899).
            session.verify = next(filter(None, map(os.environ.get, REQUESTS_BUNDLES)), True)
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
        first, history = target, list[requests.Response]()
        for _ in range(MOST_REDIRECTS + 1):
            own = origin_of(target) == origin_of(first)
            with requests_errors(self.host, target):
                response = self._session().request(
                    method,
                    target,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    params=dict(params or {}) if target == first else {},
                    data=sent_in_pieces(body),
                    auth=_Authorization(authorization if own else None),
                    stream=True,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
            self._gate.down = False
            response.history = history
            location = response.headers.get("Location")
            redirected = response.status_code in REDIRECTS and method in ("GET", "HEAD")
            if not redirected or location is None:
                with requests_errors(self.host, target):
                    refuse_web_page(response, self.host)
                    if not (stream and response.status_code in (200, 206)):
                        response._content = read_answer(response, self.host)
                        response._content_consumed = True  # type: ignore[attr-defined]
                return response
            response.close()
            target = resolve_location(self.base, target, location)
            if origin_of(target) != origin_of(first):
                history = [response]
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
                failure = self._broken(error, where)
                lost = isinstance(error, requests.exceptions.ConnectionError)
                last = not _may_pass(error)
            else:
                if response.status_code not in RETRIED:
                    return response
                failure, asked = _refused(response, where)
                lost = last = False
            failures += 1
            if last or failures >= attempts:
                self._gate.down = lost
                raise failure
            self.pause(failures, asked, failure)

    def _broken(self, error: requests.exceptions.RequestException, where: str) -> RegistryError:
        request = getattr(error, "request", None)
        url = getattr(request, "url", None) or self.base
        return (http_failure if self.is_own(url) else storage_failure)(error, where, url)

    def pause(
        self, failures: int, asked: float | None = None, failure: RegistryError | None = None
    ) -> None:
        """Wait as the policy says after so many failures; `asked` is the host's Retry-After.

        Raises `failure`, with both times, where the host asks for more than is ever waited.
        """
        if failure is not None and asked is not None and asked > self.policy.obey:
            wait = clock_span(timedelta(seconds=min(asked, _LONGEST_SAID_S)))
            raise type(failure)(
                f"{failure.what}; it asks for a wait of {wait}, and {self.policy.obey:.0f} s is "
                "the longest that is waited",
                where=failure.where,
                cure="Run it again after that time: what was uploaded is not sent again.",
            ) from failure
        seconds = self.policy.delay(failures, asked)
        if seconds >= WORTH_SAYING_S:
            why = "as it asks" if asked else "after a failure"
            self.tell("wait", f"waiting {seconds:.0f} s for {self.host}, {why}")
        if asked is not None:
            self._gate.hold(seconds)
        else:
            time.sleep(seconds)

    def tell(self, step: str, text: str) -> None:
        """Say something of this registry that a person wants to know."""
        self._on_event(Event("notice", f"registry {self.host}", step, text))


def _refused(response: requests.Response, where: str) -> tuple[RegistryError, float | None]:
    with contextlib.closing(response):
        reason = registry_reply(response.content).message or response.reason or ""
    text = f"{response.status_code} {reason}".strip()
    asked = retry_after(response.headers.get("Retry-After"))
    if response.status_code == 429:
        return throttled_error(where, text), 0.0 if asked is None else asked
    if response.history:
        return storage_refusal(response, where), asked
    failure = unavailable_error(where, text, SERVER_TROUBLE)
    if response.status_code == 500:
        failure = ServerFaultError(failure.what, where=where, cure=failure.cure)
    return failure, asked


def _may_pass(error: requests.exceptions.RequestException) -> bool:
    """Whether a later try can succeed: not with a bad certificate, name, URL or proxy."""
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return False
    if is_unknown_name(error):
        return False
    return isinstance(
        error,
        requests.exceptions.ConnectionError
        | requests.exceptions.Timeout
        | requests.exceptions.ChunkedEncodingError,
    )
