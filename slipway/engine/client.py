"""Finding the Docker daemon to use: the user's, or the embedded engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from slipway.core import Project
from slipway.engine.embedded import daemon_status, start_daemon
from slipway.engine.endpoint import _UNIX, ANSWER_S, DEFAULT_URL, _plain, ping
from slipway.engine.errors import EngineUnavailableError

# Seconds. The SDK's default of 60 is too short for commit, save and prune of large images
# (ansible/ansible-container#147).
_TIMEOUT_S = 3600
_OLDEST = (20, 10)


@dataclass(frozen=True)
class Engine:
    """A Docker daemon that answered.

    `embedded`: Slipway started it itself. `data_root` is the daemon's own path, which is on this
    machine only where `url` is a unix socket. `containerd_store`: images live in containerd
    (Docker 29's default), so that they take more disk and go out as OCI unless asked otherwise.
    """

    client: docker.DockerClient = field(repr=False, compare=False)
    url: str
    embedded: bool
    version: str
    api_version: str
    data_root: str
    containerd_store: bool

    def close(self) -> None:
        """Close the client's sockets; the daemon goes on."""
        self.client.close()

    def answers(self) -> bool:
        """Whether the daemon answers a ping now."""
        if self.url.startswith(_UNIX):
            return ping(self.url.removeprefix(_UNIX)) is None
        api = self.client.api
        try:
            with api.get(f"{api.base_url}/_ping", timeout=ANSWER_S) as response:
                return response.ok
        except requests.RequestException:
            return False


def connect(project: Project, choice: str = "auto", *, start: bool = True) -> Engine:
    """The engine for `choice`: "auto", "embedded" or a URL (unix:///..., tcp://...).

    "auto" takes what the docker CLI would take (DOCKER_HOST, the CLI's context, the default
    socket) if it answers; otherwise the embedded engine, which is started if need be. A daemon
    that DOCKER_HOST names and that does not answer is an error: the user chose it, and building on
    another disk instead would surprise. With `start` False nothing is started: an embedded
    engine counts only if it runs. Raises EngineUnavailableError with the cure.
    """
    if choice == "embedded":
        return _embedded(project, start)
    if choice != "auto":
        return _attach({"base_url": choice}, embedded=False)
    try:
        named = kwargs_from_env()
        chosen = {**ContextAPI.kwargs_from_context(), **named}
    except DockerException as error:  # certificates or a context that are not there
        raise EngineUnavailableError(
            f"the Docker settings of this environment are wrong: {error}",
            cure="Correct or unset DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and "
            "DOCKER_CONTEXT.",
        ) from error
    if "base_url" in named:
        return _attach(named, embedded=False)
    try:
        return _attach(chosen, embedded=False)
    except EngineUnavailableError as unavailable:
        try:
            return _embedded(project, start)
        except EngineUnavailableError as second:
            raise EngineUnavailableError(
                f"{unavailable.what}, and {second.what}",
                where=unavailable.where,
                cure=f"{unavailable.cure}\n  Or: {second.cure}",
            ) from second


def _embedded(project: Project, start: bool) -> Engine:
    if start:
        return _attach({"base_url": start_daemon(project)}, embedded=True)
    found = daemon_status(project)
    if not found.running:
        raise EngineUnavailableError(
            "the embedded engine does not run", where=found.url, cure="`./inv engine.start`"
        )
    return _attach({"base_url": found.url}, embedded=True)


def _attach(how: Mapping[str, Any], *, embedded: bool) -> Engine:
    url = _plain(str(how.get("base_url") or DEFAULT_URL))
    if url.startswith("ssh:"):
        raise EngineUnavailableError(
            "engines behind ssh:// are not supported",
            where=url,
            cure="Forward its socket: `ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST`, "
            "then set DOCKER_HOST=unix:///tmp/docker.sock",
        )
    if url.startswith(_UNIX) and (silence := ping(url.removeprefix(_UNIX))) is not None:
        raise _unavailable(url, silence)
    try:
        client = docker.DockerClient(**{**how, "base_url": url}, timeout=int(ANSWER_S))
    except DockerException as error:
        raise _unavailable(url, str(error)) from error
    try:
        version, info = client.version(), client.info()
    except (DockerException, requests.RequestException) as error:
        client.close()
        raise _unavailable(url, str(error)) from error
    client.api.timeout = _TIMEOUT_S
    number = str(version["Version"])
    if _numbers(number) < _OLDEST:
        client.close()
        raise EngineUnavailableError(
            f"Docker {number} is too old: BuildKit sessions need 20.10",
            where=url,
            cure="Upgrade it, or use the embedded engine (`--engine embedded`).",
        )
    store = ["driver-type", "io.containerd.snapshotter.v1"]
    return Engine(
        client=client,
        url=url,
        embedded=embedded,
        version=number,
        api_version=client.api.api_version,
        data_root=str(info["DockerRootDir"]),
        containerd_store=store in (info.get("DriverStatus") or []),
    )


def _numbers(version: str) -> tuple[int, int]:
    major, minor = [*version.split("."), "", ""][:2]
    return int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0


def _unavailable(url: str, text: str) -> EngineUnavailableError:
    if "Permission denied" in text:
        return EngineUnavailableError(
            "this user may not use the Docker daemon",
            where=url,
            cure="Join the group that owns the socket (`sudo usermod -aG docker $USER`, "
            "then log in again), or run as root.",
        )
    if "No such file" in text or "refused" in text:
        return EngineUnavailableError(
            "no Docker daemon answers",
            where=url,
            cure="Start it (`sudo systemctl start docker`), correct DOCKER_HOST, "
            "or use the embedded engine (`--engine embedded`, as root).",
        )
    return EngineUnavailableError(
        f"the Docker daemon cannot be used: {text}",
        where=url,
        cure="`docker info` or the daemon's log tell more.",
    )
