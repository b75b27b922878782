"""What may be shown: text without secrets.

One filter, for the edge where text leaves (terminal, logs) and for the words of errors. A secret is
known by where it stands (a URL's password, an Authorization header, a field called token) or by its
value: what the environment holds under a name that says so, and what was read from a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"(?i)(secret|password|passwd|passphrase|token|api_?key|access_?key|private_?key|credential)"
)
_NOT_SECRET = re.compile(r"(?i)(_(file|uri|url|path|id|name|arn|process|endpoint)$|^AWS_PROFILE$)")
_SHORTEST = 8  # a shorter value is a word that stands in ordinary text as well
# A password with a bare slash is wrong in a URL and all the same in many; host:8443/x@y has none.
_URL_LOGIN = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]*://)([^/\s'\"<>@]*|[^/\s:'\"<>@]+:(?!\d+/)[^\s'\"<>@]*)@"
)
_AUTHORIZATION = re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+[ \t]+)?)([^\s'\",;]+)")
_BEARER = re.compile(r"(?i)\b((?:basic|bearer)[ \t]+)([A-Za-z0-9+/=_.~-]{16,})")
_NAMES = r"(?:secret|passw|token|signature|api[_-]?key|access[_-]?key|registry-auth|credential)"
_FIELD = re.compile(
    rf"(?i)([\w-]*{_NAMES}[\w-]*(?:=|[\"']\s*:\s*[\"'])[\"']?)([^\s\"'&,;)}}\]]{{4,}})"
)


_remembered: set[str] = set()


def remember_secret(value: str) -> None:
    """Hide a value from now on, wherever it stands: a password that was read from a file."""
    if len(value.strip()) >= _SHORTEST:
        _remembered.update({value, value.strip(), value.encode("unicode_escape").decode()})


def secret_values(environ: Mapping[str, str]) -> frozenset[str]:
    """The values in an environment that its names call secret, and passwords in its URLs."""
    secrets: set[str] = set()
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and not _NOT_SECRET.search(name):
            secrets.update({value, value.strip(), *value.split()})
            # As a library's words quote it: b'abc\\ndef'.
            secrets.add(value.encode("unicode_escape").decode())
        for login in _URL_LOGIN.finditer(value):
            password = login[2].partition(":")[2]
            secrets.update({login[2], password, unquote(password)})
    return frozenset(value for value in secrets if len(value) >= _SHORTEST)


def public_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that needs no secret: all of it but logins, of AWS or others."""
    return {
        name: value
        for name, value in environ.items()
        if not _SECRET_NAME.search(name) and not _URL_LOGIN.search(value)
    }


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The text with every secret in it hidden."""
    known = secret_values(os.environ if environ is None else environ) | _remembered
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _URL_LOGIN.sub(rf"\1{HIDDEN}@", text)
    for pattern in (_AUTHORIZATION, _BEARER, _FIELD):
        text = pattern.sub(_hide_second, text)
    return text


def _hide_second(match: re.Match[str]) -> str:
    return match[0] if match[2].startswith((HIDDEN, "$")) else f"{match[1]}{HIDDEN}"
