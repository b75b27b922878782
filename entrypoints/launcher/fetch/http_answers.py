"""HTTP for origins: answers with their redirects looked at, and cuts told from refusals."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from launcher.fetch.origin import CutError
from launcher.fetch.sqsh_sidecar import FetchError

TIMEOUT_SECONDS = 30.0
MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
#: Statuses that a later try may turn into an answer.
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BUFFER = 1 << 18
_TROUBLE = (OSError, http.client.HTTPException, ValueError)


class _Untouched(urllib.request.HTTPErrorProcessor):
    """Every status is an answer; redirects are followed here, after a look at them."""

    def http_response(self, request: Any, response: Any) -> Any:
        """The answer as it is."""
        del request
        return response

    https_response = http_response


class HttpAnswer:
    """Status, headers (lower case) and body of an answer."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self.url = url
        self.status: int = raw.status
        self.headers = {name.lower(): value for name, value in raw.headers.items()}

    def close(self) -> None:
        """Drop the connection."""
        self._raw.close()

    def parts(self) -> Iterator[bytes]:
        """The body as it comes. Raises CutError where it ends before its length."""
        try:
            while True:
                data = self._raw.read(_BUFFER)
                if not data:
                    break
                yield data
            if self._raw.length:  # http.client's count of what is still to come
                raise CutError("it ended early")
        except _TROUBLE as error:
            if isinstance(error, CutError):
                raise
            raise CutError(f"{type(error).__name__}: {error}") from error

    def body(self, limit: int) -> bytes:
        """All of a small body. Raises FetchError where it is longer than `limit`."""
        data = bytearray()
        for part in self.parts():
            data += part
            if len(data) > limit:
                raise FetchError(f"{self.url} answers with more than {limit} bytes")
        return bytes(data)


def get_url(url: str, headers: Mapping[str, str]) -> HttpAnswer:
    """GET, through the proxy of the environment, redirects followed; close the answer.

    A login goes to the host that it is for and to no other. Raises CutError where there is no
    answer or a busy one, FetchError for redirects that lead where they should not.
    """
    first = urlsplit(url)
    opener = urllib.request.build_opener(_Untouched)
    sent = dict(headers)
    for _ in range(MOST_REDIRECTS + 1):
        request = urllib.request.Request(url, headers=sent)  # noqa: S310 - see _check_redirect
        try:
            answer = HttpAnswer(opener.open(request, timeout=TIMEOUT_SECONDS), url)
        except _TROUBLE as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise CutError(f"{first.netloc}: {reason}") from error
        if answer.status not in _REDIRECTS or "location" not in answer.headers:
            if answer.status in _BUSY:
                answer.close()
                raise CutError(f"{first.netloc} answers with {answer.status}")
            return answer
        with closing(answer):
            target = urljoin(url, answer.headers.get("location", ""))
        _check_redirect(first, target)
        if urlsplit(target)[:2] != first[:2]:
            sent = {name: value for name, value in sent.items() if not _is_login(name)}
        url = target
    raise FetchError(f"{first.netloc} redirects more than {MOST_REDIRECTS} times")


def _is_login(header: str) -> bool:
    """A signature and a role's token among them (Signature Version 4)."""
    return header.lower().startswith(("authorization", "x-amz-"))


def _check_redirect(first: SplitResult, target: str) -> None:
    """Only to where the registry's own kind of address leads: no file, no metadata service."""
    try:
        parts = urlsplit(target)
        same = (parts.scheme, parts.hostname, parts.port) == (
            first.scheme,
            first.hostname,
            first.port,
        )
    except ValueError:
        parts, same = urlsplit(""), False
    if same:
        return
    inward = _is_inward(parts.hostname or "")
    secure = parts.scheme == "https" or (parts.scheme == "http" and inward)
    strange = inward and not _is_inward(first.hostname or "")
    if not secure or strange or parts.username is not None:
        raise FetchError(f"{first.netloc} sends us to {target[:200]!r}, and we do not go there")


def _is_inward(host: str) -> bool:
    """Loopback and link-local addresses, which mean something else on each machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address.is_unspecified
