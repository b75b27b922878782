"""What an answer of a registry may cost us, and where it may send us.

A registry is whoever answers under its name: a base's may be anybody's. So no answer is read
without an end (of bytes and of time), nothing is unpacked on the way (a gzip body of a kilobyte
unpacks to a gigabyte), and a place that an answer names is looked at before anything goes there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from urllib3.exceptions import ReadTimeoutError

from slipway.registry.errors import RegistryError, web_page_error
from slipway.registry.hosts import is_private_address

ANSWER_LIMIT = 4 << 20
"""Bytes of a manifest, a token or an error: ECR's limit of a manifest is 4,194,304 characters."""

ANSWER_SECONDS = 180.0
"""How long such an answer may take in all: one byte before each time-out would be for ever."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5

_DEFAULT_PORTS = {"http": 80, "https": 443}


def raw_pieces(response: requests.Response, size: int) -> Iterator[bytes]:
    """The body in pieces of at most `size`, exactly as sent. Raises requests' own exceptions."""
    try:
        yield from response.raw.stream(size, decode_content=False)
    except ReadTimeoutError as error:
        raise requests.exceptions.ConnectionError(error) from error
    except requests.exceptions.RequestException:
        raise
    except Exception as error:  # urllib3's own, and those of what it stands on
        raise requests.exceptions.ChunkedEncodingError(error) from error


def read_answer(response: requests.Response, where: str) -> bytes:
    """The body of an answer that is no blob. Raises RegistryError where it does not end."""
    body = bytearray()
    deadline = time.monotonic() + ANSWER_SECONDS
    for piece in raw_pieces(response, 1 << 16):
        body += piece
        if len(body) > ANSWER_LIMIT:
            response.close()
            raise RegistryError(
                f"the answer is longer than {ANSWER_LIMIT >> 20} MiB, which no manifest is",
                where=where,
            )
        if time.monotonic() > deadline:
            response.close()
            raise RegistryError(f"the answer did not end in {ANSWER_SECONDS:.0f} s", where=where)
    return bytes(body)


def refuse_web_page(response: requests.Response, where: str) -> None:
    """Raises RegistryUnavailableError where a success is a page for people: a portal's, a proxy's.

    A refusal may be one: web servers stand before many registries.
    """
    page = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if response.status_code == 511 or (page and response.status_code < 300):
        raise web_page_error(where, read_answer(response, where).decode("utf-8", "replace"))


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what may see the login that was made for it."""
    parts = _split(url)
    return parts.scheme, (parts.hostname or "").lower(), _port(parts)


def resolve_location(base: str, requested: str, location: str) -> str:
    """The URL that a Location header names (it may be relative), where we go there.

    Raises RegistryError for plain http anywhere but to the registry itself (`base`), for other
    schemes, for names with a login in them, and for addresses of this machine or its network that a
    registry elsewhere would have us ask.
    """
    try:
        url = urljoin(requested, location)
    except ValueError:
        url = location
    parts = _split(url)
    refusal = ""
    if parts.username is not None:
        refusal = "with a login in it"
    elif parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        refusal = "which is not https"
    elif origin_of(url) == origin_of(base):
        return url
    elif parts.scheme == "http" and not _is_private_url(url):
        refusal = "which is not https"
    elif _is_private_url(url) and not _is_private_url(base):
        refusal = "which is an address of this machine or its own network"
    if refusal:
        raise RegistryError(
            f"sends us to {location[:200]!r}, {refusal}",
            where=origin_of(base)[1],
            cure="Nothing was sent there. A captive portal or a proxy that wants a login sends "
            "everyone on like this.",
        )
    return url


def _is_private_url(url: str) -> bool:
    return is_private_address(_split(url).hostname or "")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _port(parts)
    except ValueError:
        return urlsplit("")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
