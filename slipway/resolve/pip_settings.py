"""The host's own pip settings, and the same said to uv.

uv resolves, because pip does not evaluate environment markers for another Python
(pypa/pip#11664); but where packages come from is for the host's administrator to say, and pip's
configuration is where they say it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from slipway.core import SlipwayError


@dataclass(frozen=True)
class PipSettings:
    """What pip's configuration files and PIP_* variables say about where packages come from."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    timeout: str | None = None


def read_pip_settings() -> PipSettings:
    """What `pip config list` says for `pip download`, environment included.

    Raises SlipwayError where pip cannot be run or its configuration cannot be read.
    """
    settings = parse_pip_config(_pip("config", "list", "--disable-pip-version-check"))
    if settings.extra_index_urls and not settings.index_url and not settings.no_index:
        return replace(settings, index_url=default_index(_pip("download", "--help")))
    return settings


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SlipwayError(
            f"pip does not run: {done.stderr.strip()}",
            cure="Mend the file that pip names; `./inv` makes .venv with pip in it.",
        )
    return done.stdout


def default_index(help_text: str) -> str | None:
    """The index that pip uses when none is configured, by its own help."""
    flat = " ".join(help_text.split())
    match = re.search(r"--index-url <url> [^(]*\(default (\S+?)\)", flat)
    return match[1] if match else None


def parse_pip_config(text: str) -> PipSettings:
    """`pip config list` as settings.

    Its lines are ``section.key='value'``. A command's section wins over ``[global]``, and the
    environment over both (pip documentation, "Configuration", precedence).
    """
    order = {"global": 0, "download": 1, ":env:": 2}
    values: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.strip().rpartition(".")
        rank = order.get(section)
        if rank is not None and rank >= values.get(key, (-1, ""))[0]:
            values[key] = (rank, str(ast.literal_eval(value)))

    def one(key: str) -> str | None:
        return values.get(key, (0, ""))[1].strip() or None

    def many(key: str) -> tuple[str, ...]:
        return tuple((one(key) or "").split())

    return PipSettings(
        index_url=one("index-url"),
        extra_index_urls=many("extra-index-url"),
        find_links=many("find-links"),
        no_index=(one("no-index") or "").lower() in {"1", "y", "yes", "t", "true", "on"},
        cert=one("cert"),
        client_cert=one("client-cert"),
        proxy=one("proxy"),
        trusted_hosts=many("trusted-host"),
        timeout=one("timeout") or one("default-timeout"),
    )


def uv_environment(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the settings in uv's variables; the host's own UV_* index settings give way.

    uv lets the first index that has a package win; ``unsafe-best-match`` is pip's behaviour, the
    best version over all of them (uv documentation, "Package indexes"). Of one version uv takes the
    files of one index only, so the main index comes first and an extra one, which may mirror a
    part of it, gives only what it alone has. uv searches its "default" index last.
    """
    environment = {key: value for key, value in environ.items() if key not in _OVERRIDDEN}
    environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    environment["UV_SYSTEM_CERTS"] = "true"
    environment["NO_COLOR"] = "1"
    if settings.index_url:
        *first, last = (settings.index_url, *settings.extra_index_urls)
        environment["UV_DEFAULT_INDEX"] = last
        environment["UV_INDEX"] = " ".join(first)
    elif settings.extra_index_urls:
        environment["UV_INDEX"] = " ".join(settings.extra_index_urls)
    if settings.find_links:
        environment["UV_FIND_LINKS"] = ",".join(settings.find_links)
    if settings.trusted_hosts:
        environment["UV_INSECURE_HOST"] = " ".join(settings.trusted_hosts)
    # pip takes requests' variables as well where it has no `cert` of its own.
    cert = settings.cert or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if cert:
        environment["SSL_CERT_FILE"] = cert
    if settings.client_cert:
        environment["SSL_CLIENT_CERT"] = settings.client_cert
    if settings.proxy:
        environment["HTTP_PROXY"] = environment["HTTPS_PROXY"] = environment["ALL_PROXY"] = (
            settings.proxy
        )
    if settings.timeout:
        environment["UV_HTTP_TIMEOUT"] = settings.timeout
    return environment


def host_uv_environment(settings: PipSettings) -> dict[str, str]:
    """`uv_environment` of this process."""
    return uv_environment(settings, os.environ)


_OVERRIDDEN = frozenset(
    {
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_INDEX_URL",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_NO_INDEX",
        "UV_INSECURE_HOST",
        "UV_EXCLUDE_NEWER",
        "UV_PRERELEASE",
        "UV_RESOLUTION",
        "UV_CONSTRAINT",
        "UV_OVERRIDE",
    }
)
