"""What `docker login` has left: config.json and the credential helpers that it names."""

from __future__ import annotations

import shutil

import docker.auth
from docker.auth import AuthConfig
from docker.credentials.constants import PROGRAM_PREFIX
from docker.errors import DockerException

from slipway.registry.errors import NoCredentialsError
from slipway.registry.model import Credentials


def docker_login(host: str) -> Credentials | None:
    """The login for a registry host, read anew each time; None where there is none.

    A credential helper that is not installed has none: public registries need no login. Raises
    NoCredentialsError for one that cannot be read or used.
    """
    try:
        config = docker.auth.load_config()
        helper = config.get_credential_store(host)
        if helper and shutil.which(PROGRAM_PREFIX + helper) is None:
            config = AuthConfig({"auths": config.auths})
        found = config.resolve_authconfig(host) or {}
    except (DockerException, ValueError) as error:
        raise NoCredentialsError(
            f"Docker's configuration has a login that cannot be read: {error}",
            where=host,
            cure=f"Log in again: docker login {host}",
        ) from error
    # Files have the keys in small letters, helpers begin them with capitals.
    known = {key.lower(): value for key, value in found.items()}
    if known.get("identitytoken"):
        raise NoCredentialsError(
            "Docker's login there is an identity token, which is good for Docker only",
            where=host,
            cure=f"Log in with a user name and an access token: docker login -u USER {host}",
        )
    if not known.get("username"):
        return None
    return Credentials(known["username"], known["password"])
