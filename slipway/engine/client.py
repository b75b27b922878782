"""Finding the Docker daemon to use: the user's, or the embedded engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import docker
import requests

from slipway.core import Project, error_text
from slipway.engine.docker_settings import DockerEndpoint, docker_endpoint
from slipway.engine.embedded import daemon_status, start_daemon
from slipway.engine.endpoint import _UNIX, ANSWER_S, ping
from slipway.engine.errors import EngineUnavailableError

# Seconds. The SDK's default of 60 is too short for commit, save and prune of large images
# (ansible/ansible-container#147).
_TIMEOUT_S = 3600
_OLDEST = (20, 10)
_SCHEMES = ("unix", "tcp", "http", "https")
_USE_EMBEDDED = (
    "use the embedded engine, as root (`slipway.engine: embedded` in invoke.yaml, or "
    "INVOKE_SLIPWAY_ENGINE=embedded)"
)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # as the kernel names them

EngineKind = Literal["Docker", "rootless Docker", "Docker Desktop", "Podman"]


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
    kind: EngineKind = "Docker"
    architecture: str = "amd64"  # of its processors, as images name it

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

    "auto" takes what the docker CLI would take (docker_settings); only where nothing names a
    daemon, and none answers on the default socket, the embedded engine, which is started if need
    be. A daemon that a setting names and that does not answer is an error: the user chose it, and
    building on another disk instead would surprise. With `start` False nothing is started: an
    embedded engine counts only if it runs. Raises EngineUnavailableError with the cure.
    """
    if choice == "embedded":
        return _embedded(project, start)
    if choice != "auto":
        return _attach(DockerEndpoint(choice, "slipway.engine"), embedded=False)
    endpoint = docker_endpoint()
    if endpoint.named_by:
        return _attach(endpoint, embedded=False)
    try:
        return _attach(endpoint, embedded=False)
    except EngineUnavailableError as unavailable:
        try:
            return _embedded(project, start)
        except EngineUnavailableError as second:
            raise EngineUnavailableError(
                f"{unavailable.what}, and {second.what}",
                where=unavailable.where,
                cure=f"{unavailable.cure}\n  Or: {second.cure}",
            ) from second


def starts_embedded(choice: str) -> bool:
    """Whether `connect` starts the embedded engine where no daemon can be used.

    Raises EngineUnavailableError as `connect` does, for a Docker context that cannot be read.
    """
    return choice == "embedded" or (choice == "auto" and not docker_endpoint().named_by)


def _embedded(project: Project, start: bool) -> Engine:
    if start:
        return _attach(DockerEndpoint(start_daemon(project)), embedded=True)
    status = daemon_status(project)
    if not status.running:
        raise EngineUnavailableError(
            "the embedded engine does not run", where=status.url, cure="`./inv engine.start`"
        )
    return _attach(DockerEndpoint(status.url), embedded=True)


def _attach(endpoint: DockerEndpoint, *, embedded: bool) -> Engine:
    client, version, info = _ask(endpoint)
    try:
        kind = engine_kind(version, info)
        number = _number(version)
        _check_kind(kind, number, endpoint.url)
        client.api.timeout = _TIMEOUT_S
        machine = str(info.get("Architecture") or "")
        store = ["driver-type", "io.containerd.snapshotter.v1"]
        return Engine(
            client=client,
            url=endpoint.url,
            embedded=embedded,
            version=number,
            api_version=str(client.api.api_version),
            data_root=str(info.get("DockerRootDir") or ""),
            containerd_store=store in (info.get("DriverStatus") or []),
            kind=kind,
            architecture=_ARCHITECTURES.get(machine, machine),
        )
    except BaseException:
        client.close()
        raise


def engine_info(url: str) -> Mapping[str, Any]:
    """What the daemon at a URL says about itself.

    Raises EngineUnavailableError, also for one that `connect` refuses.
    """
    client, version, info = _ask(DockerEndpoint(url))
    client.close()
    _check_kind(engine_kind(version, info), _number(version), url)
    return info


def _ask(
    endpoint: DockerEndpoint,
) -> tuple[docker.DockerClient, Mapping[str, Any], Mapping[str, Any]]:
    """A client, with the answers to the first two questions. Raises EngineUnavailableError."""
    url = endpoint.url
    if url.startswith("ssh:"):
        raise EngineUnavailableError(
            "engines behind ssh:// are not supported",
            where=url,
            cure="Forward its socket: `ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST`, "
            "then set DOCKER_HOST=unix:///tmp/docker.sock",
        )
    scheme, given, address = url.partition("://")
    if scheme not in _SCHEMES or not given or not address:
        raise EngineUnavailableError(
            "this is not the address of an engine",
            where=url or "(empty)",
            cure=f"Correct {endpoint.named_by or 'DOCKER_HOST'}: unix:///path/of.sock or "
            "tcp://host:port.",
        )
    if url.startswith(_UNIX) and (silence := ping(url.removeprefix(_UNIX))) is not None:
        raise _unavailable(endpoint, silence)
    options = endpoint.client_options()
    client = None
    try:
        client = docker.DockerClient(**options, timeout=int(ANSWER_S))
        version, info = client.version(), client.info()
        if not isinstance(version, dict) or not isinstance(info, dict):
            raise TypeError("it does not answer as a Docker daemon does")
    except Exception as error:  # the SDK lets out what its parts raise: each means "not usable"
        if client is not None:
            client.close()
        raise _unavailable(endpoint, error_text(error)) from error
    return client, version, info


def engine_kind(version: Mapping[str, Any], info: Mapping[str, Any]) -> EngineKind:
    """What answers on a Docker socket, by its own words (`GET /version`, `GET /info`)."""
    parts = [part for part in version.get("Components") or () if isinstance(part, dict)]
    if any("podman" in str(part.get("Name")).lower() for part in parts):
        return "Podman"
    platform = version.get("Platform")
    named = str(platform.get("Name") if isinstance(platform, dict) else "")
    if "Docker Desktop" in (named, str(info.get("OperatingSystem"))) or "Desktop" in named:
        return "Docker Desktop"
    if "name=rootless" in (info.get("SecurityOptions") or ()):
        return "rootless Docker"
    return "Docker"


def _number(version: Mapping[str, Any]) -> str:
    return str(version.get("Version") or "unknown")


def _check_kind(kind: EngineKind, number: str, url: str) -> None:
    if kind == "Podman":
        raise EngineUnavailableError(
            f"this is Podman {number}, not Docker: it has no BuildKit, which builds need",
            where=url,
            cure=f"Name a Docker daemon in DOCKER_HOST, {_USE_EMBEDDED}, or build without an "
            "engine (`--no-engine`).",
        )
    if _numbers(number) < _OLDEST:
        raise EngineUnavailableError(
            f"{kind} {number} is too old: BuildKit sessions need 20.10",
            where=url,
            cure=f"Upgrade it, or {_USE_EMBEDDED}.",
        )


def _numbers(version: str) -> tuple[int, int]:
    """Major and minor; a version that has none (a daemon built from source) counts as new."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else _OLDEST


def _unavailable(endpoint: DockerEndpoint, text: str) -> EngineUnavailableError:
    url = endpoint.url
    correct = f"correct {endpoint.named_by}" if endpoint.named_by else "name another in DOCKER_HOST"
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
            cure=f"Start it (`sudo systemctl start docker`), {correct}, or {_USE_EMBEDDED}.",
        )
    return EngineUnavailableError(
        f"the Docker daemon cannot be used: {text}",
        where=url,
        cure=f"{correct[0].upper()}{correct[1:]}; `docker info` or the daemon's log tell more.",
    )
