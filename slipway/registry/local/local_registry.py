"""The local registry: Debian's docker-registry (Distribution) on loopback, one for a project.

It has a login of its own, since every user of the machine reaches loopback.
"""

from __future__ import annotations

import shlex
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Credentials, Project, service_lock, wait_until
from slipway.registry.errors import RegistryError
from slipway.registry.local.local_login import USER, password_file
from slipway.registry.local.local_server import ADDRESS, RegistryServer
from slipway.registry.target import Target

PORT = 5055
_BINARY = "docker-registry"


@dataclass(frozen=True)
class LocalRegistryStatus:
    """What is known of the local registry. `target` is None where it was never started.

    `password` is the file that has the password of `user`.
    """

    running: bool
    target: Target | None
    pid: int | None
    storage: Path
    log: Path
    user: str
    password: Path


def start_local_registry(project: Project, port: int | None = None) -> Target:
    """The running local registry, started where it is not.

    `port` is the one to prefer (without it that of the last time, else 5055); where another program
    has it, a free one is taken and kept. Two calls at once start one registry. Raises
    RegistryError where the binary is missing, RegistryUnavailableError where it does not come up.
    """
    server = RegistryServer(project.registry)
    with service_lock(server.root, "the local registry", RegistryError):
        if server.login is None:
            # One of an earlier version, which asked nobody, or whose login was lost.
            server.stop()
        if server.pid is None or not server.wait():
            _start(server, port or server.port or PORT)
        return _target(server.port or PORT)


def stop_local_registry(project: Project) -> bool:
    """Stop the local registry; its images stay on disk. False: it was not running."""
    server = RegistryServer(project.registry)
    with service_lock(server.root, "the local registry", RegistryError):
        return server.stop()


def local_registry_status(project: Project) -> LocalRegistryStatus:
    """What is known of the local registry; changes nothing."""
    server = RegistryServer(project.registry)
    port, pid = server.port, server.pid
    target = _target(port) if port is not None else None
    return LocalRegistryStatus(
        pid is not None and server.answers(),
        target,
        pid,
        server.storage,
        server.log,
        USER,
        password_file(server.root),
    )


def local_registry_login(project: Project, host: str) -> Credentials | None:
    """The login for the project's local registry; None for any other host.

    Also None while it does not run: another user's program may have its port then.
    """
    server = RegistryServer(project.registry)
    if not host.startswith(f"{ADDRESS}:") or host != f"{ADDRESS}:{server.port}":
        return None
    return server.login if server.pid is not None else None


def docker_login_words(project: Project, host: str) -> list[str]:
    """What follows `docker` to have the docker command log in; empty for any other host."""
    server = RegistryServer(project.registry)
    if host != f"{ADDRESS}:{server.port}":
        return []
    path = shlex.quote(str(password_file(server.root)))
    return ["login", host, "--username", USER, "--password-stdin", "<", path]


def _start(server: RegistryServer, preferred: int) -> None:
    binary = shutil.which(_BINARY)
    if binary is None:
        raise RegistryError(
            f"the local registry needs {_BINARY}, which is not installed",
            cure="`inv setup` installs it (Debian and Ubuntu: apt-get install docker-registry).",
        )
    if preferred == server.port:
        # A registry of ours that was killed may hold it for a moment more.
        wait_until(lambda: _free_port(preferred) is not None, 1.0)
    # 0: whatever is free. A port can be taken between the look and the start: then another one.
    for candidate in (preferred, 0, 0, 0):
        port = _free_port(candidate)
        if port is not None:
            server.configure(port)
            server.launch(binary)
            if server.wait():
                return
    raise RegistryError(f"no port of {ADDRESS} stays free", where=str(server.log))


def _target(port: int) -> Target:
    return Target("local", "local", f"{ADDRESS}:{port}")


def _free_port(port: int) -> int | None:
    """The port where it can be bound, any one for 0, None where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
