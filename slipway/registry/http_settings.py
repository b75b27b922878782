"""Settings of others that decide how HTTP goes (proxies, certificate bundles): which one is wrong.

They are looked at after a failure, so that its words can name the setting and where it came from.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from requests.utils import should_bypass_proxies

ENVIRONMENT = "the environment"
REQUESTS_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""What names the certificates that registries are held to; the first that is set counts."""


@dataclass(frozen=True)
class SettingFault:
    """A setting that cannot work, wherever it is used. `reason` never has a secret value in it."""

    setting: str
    origin: str  # "the environment", or a file and its profile
    reason: str

    def __str__(self) -> str:
        return f"{self.setting} (from {self.origin}) {self.reason}"

    @property
    def cure(self) -> str:
        """What to do about it."""
        return f"Correct or unset {self.setting}."


def proxy_variable(url: str, *, all_proxy: bool = True) -> str | None:
    """The variable that names the proxy for a URL, None where none is in the way.

    `all_proxy`: whether ALL_PROXY counts, too (for requests it does, for botocore not).
    """
    scheme = url.partition("://")[0].lower()
    names = [f"{scheme}_proxy", *(["all_proxy"] if all_proxy else [])]
    for name in (spelled for lower in names for spelled in (lower, lower.upper())):
        if os.environ.get(name):
            return None if _bypassed(url) else name
    return None


def _bypassed(url: str) -> bool:
    try:
        return bool(should_bypass_proxies(url, no_proxy=None))
    except Exception:  # noqa: BLE001  NO_PROXY or the URL is none: then nothing is bypassed
        return False


def http_fault(
    url: str, bundles: Sequence[str] = REQUESTS_BUNDLES, *, all_proxy: bool = True
) -> SettingFault | None:
    """What is wrong with the proxy or the certificates that a request to `url` uses."""
    bundle = next((name for name in bundles if os.environ.get(name)), None)
    if url.lower().startswith("https") and bundle:
        reason = bundle_fault(os.environ[bundle])
        if reason:
            return SettingFault(bundle, ENVIRONMENT, reason)
    proxy = proxy_variable(url, all_proxy=all_proxy)
    reason = proxy_fault(os.environ[proxy]) if proxy else ""
    return SettingFault(proxy, ENVIRONMENT, reason) if proxy and reason else None


def bundle_fault(path: str) -> str:
    """Why a file or folder cannot serve as a bundle of certificates; empty where it can."""
    try:
        if Path(path).is_dir():
            return ""
        if not Path(path).exists():
            return f"names a file that is not there: {path}"
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None)
        return (
            f"names a file without usable certificates: {path} ({reason or type(error).__name__})"
        )
    return ""


def proxy_fault(value: str) -> str:
    """Why a proxy's URL is none that can be used; empty where it can."""
    parts = split_url(value if "://" in value else f"http://{value}")
    if parts is None:
        return "is not the URL of a proxy (http://HOST:PORT)"
    if parts.scheme.startswith("socks"):
        if importlib.util.find_spec("socks") is None:
            return f"names a SOCKS proxy ({parts.scheme}), which needs a library that is not here"
    elif parts.scheme not in ("http", "https"):
        return f"names a proxy of a kind that there is not: {parts.scheme}"
    return ""


def split_url(text: str) -> SplitResult | None:
    """A URL with a host, and a port that is a number if any; None for what is none."""
    try:
        parts = urlsplit(text.strip())
        usable = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    host = parts.hostname or ""
    return (
        parts if usable and host.isprintable() and not set(host) & set(" \t<>\"'\\^`{|}") else None
    )
