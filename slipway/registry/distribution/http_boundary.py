"""The exceptions of requests and urllib3 as ours, with the setting that is to blame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NameResolutionError

from slipway.core import SlipwayError, error_text, printable, redact
from slipway.registry.errors import (
    NotAuthorisedError,
    RegistryError,
    RegistryUnavailableError,
    clock_error,
    is_web_page,
    page_title,
    refusal_error,
    unavailable_error,
)
from slipway.registry.http_settings import http_fault, proxy_variable

_STORAGE_CURE = (
    "ECR keeps layers in S3: in a private subnet add a gateway endpoint for S3, and let its "
    "policy, the firewall and the proxy allow that host."
)
_WAY = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
"""What the way to the server can cause; ProxyError and SSLError are of the first kind."""


@contextmanager
def requests_errors(where: str, url: str) -> Iterator[None]:
    """Raise RegistryError for whatever the libraries raise inside beside requests' own classes.

    Those go through: a later try may succeed. The others come from a setting, or from a name or URL
    that cannot be one: OSError for a bundle that is not there, urllib3's LocationParseError,
    ValueError, UnicodeError.
    """
    try:
        yield
    except (SlipwayError, requests.exceptions.RequestException):
        raise
    except Exception as error:
        raise http_failure(error, where, url) from error


def http_failure(error: Exception, where: str, url: str) -> RegistryError:
    """The error for a request to `url` that got no answer."""
    reason = transport_reason(error)
    fault = http_fault(url)
    if fault is not None:
        return RegistryError(f"{reason}; {fault}", where=where, cure=fault.cure)
    if isinstance(error, requests.exceptions.SSLError):
        return _certificate_error(reason, where)
    proxy = proxy_variable(url)
    if isinstance(error, requests.exceptions.ProxyError):
        named = proxy or "the proxy settings"
        cure = f"Check {named}, and whether that proxy lets this host through."
        return unavailable_error(where, f"the proxy: {reason}", cure)
    if not isinstance(error, _WAY):
        return RegistryError(
            f"the request cannot be sent ({reason})",
            where=where,
            cure="Check the registry's name, and what the environment sets for HTTP.",
        )
    if is_unknown_name(error):
        return unavailable_error(
            where, reason, "Check the host's name, and this machine's name service (DNS)."
        )
    also = f" and the proxy that {proxy} names" if proxy else ""
    return unavailable_error(where, reason, f"Check the network{also}, or try later.")


def storage_failure(error: Exception, where: str, url: str) -> RegistryError:
    """The error for a request that the registry sent on to another host, which gave no answer."""
    failure = http_failure(error, where, url)
    if isinstance(failure, RegistryUnavailableError):
        what = _elsewhere(url, f"cannot be reached ({transport_reason(error)})")
        return RegistryUnavailableError(what, where=where, cure=_STORAGE_CURE)
    return type(failure)(_elsewhere(url, failure.what), where=where, cure=failure.cure)


def _elsewhere(url: str, what: str) -> str:
    return f"the registry keeps this on another host, {urlsplit(url).netloc}: {what}"


def storage_refusal(response: requests.Response, where: str) -> RegistryError:
    """The error for an answer to a blob's request, from the registry or where it sent us."""
    if not response.history:
        return refusal_error(response.status_code, response.content, where=where)
    text = response.content.decode("utf-8", "replace")
    code, message = (re.search(rf"<{tag}>([^<]{{1,300}})<", text) for tag in ("Code", "Message"))
    reason = " ".join(match[1] for match in (code, message) if match)
    reason = page_title(text) if not reason and is_web_page(text) else reason
    what = f"{response.status_code} {redact(printable(reason)) or response.reason or ''}".strip()
    kind = NotAuthorisedError if response.status_code == 403 else RegistryUnavailableError
    return kind(_elsewhere(response.url, f"it answers {what}"), where=where, cure=_STORAGE_CURE)


def _certificate_error(reason: str, where: str) -> RegistryError:
    if "not yet valid" in reason:
        return clock_error(where, f"the server's certificate is not valid yet: {reason}", None)
    if "expired" in reason:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
        return RegistryError(
            f"the server's certificate has expired ({reason})",
            where=where,
            cure=f"This machine's clock says {now} UTC: where that is wrong, set it; else only the "
            "server's owner can renew it.",
        )
    return RegistryError(
        f"the server's certificate is not trusted ({reason})",
        where=where,
        cure="Behind a proxy with its own certificate authority, name its bundle in "
        "REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
    )


def is_unknown_name(error: Exception) -> bool:
    """Whether the host's name has no address."""
    first = error.args[0] if error.args else None
    return isinstance(getattr(first, "reason", None), NameResolutionError)


def transport_reason(error: BaseException) -> str:
    """The innermost words: requests wraps urllib3, which wraps the socket's error."""
    inner = getattr(error, "reason", None)
    causes = [inner, *reversed(error.args)]
    cause = next((part for part in causes if isinstance(part, BaseException)), None)
    if cause is not None and cause is not error:
        return transport_reason(cause)
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return redact(printable(str(error.strerror)))
    # urllib3 puts the connection's own description before the words.
    return error_text(error).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
