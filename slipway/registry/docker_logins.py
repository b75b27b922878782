"""`docker login`'s own files and helpers: what can be used of them, and what is wrong, by place.

A part of config.json that is broken concerns the host that it is for, and no other. What is said
names the place and never the value.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.core import Credentials, error_text, printable, redact
from slipway.engine import EngineUnavailableError, docker_folder, read_docker_json
from slipway.registry.errors import NoCredentialsError

_PREFIX = "docker-credential-"
_HELPER_S = 60.0  # a keychain may ask its owner first
_HUB = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))
_NOT_FOUND = "credentials not found"  # docker/docker-credential-helpers: credentials/error.go


def docker_login(host: str) -> Credentials | None:
    """The login for a registry host, read anew each time; None where there is none.

    A credential helper that is not installed has none: public registries need no login. Raises
    NoCredentialsError for one that cannot be read or used.
    """
    path = docker_folder(os.environ) / "config.json"
    try:
        config = read_docker_json(path)
    except EngineUnavailableError as error:
        raise NoCredentialsError(
            f"Docker's logins cannot be read: {error.what}", where=error.where, cure=error.cure
        ) from error
    login = _from_helper(config, host, path) or _from_file(config, host, path)
    if login is None or not login[0]:
        return None
    return Credentials(*login)


def _from_helper(config: Mapping[str, Any], host: str, path: Path) -> tuple[str, str] | None:
    key, helper = "credsStore", config.get("credsStore")
    helpers = config.get("credHelpers")
    if helpers is not None and not isinstance(helpers, dict):
        raise _broken(host, path, "credHelpers", "is no object")
    for server, name in (helpers or {}).items():
        if _same(server, host):
            key, helper = f"credHelpers.{server}", name
    if not helper:
        return None
    if not isinstance(helper, str) or "/" in helper:
        raise _broken(host, path, key, "is no helper's name")
    program = shutil.which(f"{_PREFIX}{helper}")
    return _ask(program, host, path, key) if program else None


def _ask(program: str, host: str, path: Path, key: str) -> tuple[str, str] | None:
    server = "https://index.docker.io/v1/" if host in _HUB else host
    name = Path(program).name
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _broken(host, path, key, f"({name}) does not run: {error_text(error)}") from error
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        if _NOT_FOUND in output:
            return None
        shown = redact(printable((done.stderr.decode("utf-8", "replace") or output).strip()))[:200]
        raise _broken(host, path, key, f"({name}) failed: {shown or f'exit {done.returncode}'}")
    try:
        answer = json.loads(output)
        user, secret = answer["Username"], answer["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _broken(host, path, key, f"({name}) gives no login in its answer") from None
    if user == "<token>":
        raise _identity_token(host)
    return user, secret


def _from_file(config: Mapping[str, Any], host: str, path: Path) -> tuple[str, str] | None:
    auths = config.get("auths")
    if auths is None:
        return None
    if not isinstance(auths, dict):
        raise _broken(host, path, "auths", "is no object")
    # The host itself before https://host/v1/, as the older client wrote it.
    for server in sorted((key for key in auths if _same(key, host)), key=len):
        entry, key = auths[server], f"auths.{server}"
        if entry is None:
            continue
        if not isinstance(entry, dict):
            raise _broken(host, path, key, "is no object")
        if entry.get("identitytoken"):
            raise _identity_token(host)
        user, secret = entry.get("username"), entry.get("password")
        if entry.get("auth"):
            user, secret = _decoded(entry["auth"], host, path, f"{key}.auth")
        if (user and not isinstance(user, str)) or (secret and not isinstance(secret, str)):
            raise _broken(host, path, key, "has a username or password that is no text")
        if user:
            return user, secret or ""
    return None


def _decoded(text: object, host: str, path: Path, key: str) -> tuple[str, str]:
    try:
        if not isinstance(text, str):
            raise TypeError
        packed = text.replace("\n", "").replace("\r", "")  # which docker passes over
        user, colon, secret = base64.b64decode(packed, validate=True).decode().partition(":")
    except (ValueError, TypeError):
        raise _broken(host, path, key, "is not base64") from None
    if not colon:
        raise _broken(host, path, key, "is no user and password")
    return user, secret.rstrip("\0")


def _same(server: str, host: str) -> bool:
    name = server.partition("://")[2] or server
    name = name.partition("/")[0]
    return name == host or (name in _HUB and host in _HUB)


def _broken(host: str, path: Path, key: str, what: str) -> NoCredentialsError:
    return NoCredentialsError(
        f"Docker has a login for {host} that cannot be read: {printable(key)} {what}",
        where=str(path),
        cure=f"Log in again: docker login {host}",
    )


def _identity_token(host: str) -> NoCredentialsError:
    return NoCredentialsError(
        "Docker's login there is an identity token, which is good for Docker only",
        where=host,
        cure=f"Log in with a user name and an access token: docker login -u USER {host}",
    )
