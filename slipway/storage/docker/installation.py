"""The Docker installation to inspect or move: which one, where its data is, how it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slipway.core import Project, UsageError
from slipway.engine import (
    DEFAULT_URL,
    Engine,
    connect,
    daemon_status,
    docker_endpoint,
    engine_info,
    ping,
)
from slipway.storage.docker import containerd, setup_checks
from slipway.storage.docker.config_files import parse_flags, read_daemon_json
from slipway.storage.docker.containerd import Containerd
from slipway.storage.docker.daemon_process import (
    DaemonProcess,
    ProcessService,
    describe_process,
    listener,
)
from slipway.storage.docker.data_folder import DOCKERS_NAMESPACES, DataFolders
from slipway.storage.docker.embedded_service import EmbeddedService, own_data_path
from slipway.storage.docker.systemd import CONTAINERD, DOCKER, SystemdService, show_unit
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine

_DEFAULT_ROOT = "/var/lib/docker"
_UNIX = "unix://"

Service = ProcessService | EmbeddedService | SystemdService
"""A Docker that can be stopped and started again exactly as it was, by another process too.

`stop` stops all of it, in an order in which nothing starts it again; `start` adds these variables
where no configuration file sets them; `steps` says what both do, for a person. Both raise
StorageError.
"""


@dataclass(frozen=True)
class DockerInstallation:
    """A Docker on this machine.

    `data_root` is where its data is now; `at_rest` the path of the same while it is stopped.
    `flags` are dockerd's own; `tmp` is DOCKER_TMPDIR where it is set. `containerd` is a separate
    one, None where dockerd starts its own below its data-root.
    """

    url: str
    running: bool
    data_root: Path
    at_rest: Path
    service: Callable[[bool], Service]
    """The service; the argument tells whether its containerd is to be stopped as well."""
    embedded: bool = False
    systemd: bool = False
    config: Path | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    tmp: Path | None = None
    containerd: Containerd | None = None
    own_namespaces: tuple[str, ...] = DOCKERS_NAMESPACES
    problem: StorageError | None = None
    """Why this set-up cannot be moved; None for a plain one."""

    @property
    def folders(self) -> DataFolders:
        """Where its data is; a containerd that others work with keeps its own."""
        separate = self.containerd
        root = separate.root if separate and not separate.others else None
        return DataFolders(self.data_root, root, self.own_namespaces)

    @property
    def name(self) -> str:
        """For a person."""
        return "the embedded engine" if self.embedded else f"Docker at {self.url}"


def installation_key(url: str) -> str:
    """A folder name for the daemon behind a URL."""
    path = Path(url.removeprefix(_UNIX))
    return str(path.parent.resolve() / path.name).strip("/").replace("/", "-")


def choose_daemon(choice: str, machine: Machine) -> str:
    """The URL of the daemon that is meant, "embedded" for the embedded engine.

    As `slipway.engine.client.connect` chooses, but a system Docker that systemd could start is
    the one meant also while it is stopped. Raises UsageError for a daemon that is elsewhere.
    """
    if choice == "embedded":
        return choice
    url = choice
    if choice == "auto":
        endpoint = docker_endpoint()
        url = endpoint.url
        if url == DEFAULT_URL:
            url = machine.docker_url
        installed = machine.systemd and machine.has_unit(DOCKER)
        answers = endpoint.named_by or ping(url.removeprefix(_UNIX)) is None
        if not answers and not installed:
            return "embedded"
    if not url.startswith(_UNIX):
        raise UsageError(
            "only a Docker on this machine can be looked after",
            where=url,
            cure="Run this on the machine where it runs, or name its unix socket.",
        )
    return url


def find_installation(project: Project, url: str, machine: Machine) -> DockerInstallation:
    """Everything about the daemon that `choose_daemon` named. Starts nothing, changes nothing."""
    if url == "embedded":
        return _embedded(project)
    socket = Path(url.removeprefix(_UNIX))
    if machine.systemd and url == machine.docker_url:
        unit = show_unit(DOCKER, "MainPID", "ExecStart", "Environment", "EnvironmentFiles")
        pid = int(unit.get("MainPID") or 0)
        if not pid:
            return _stopped(machine, url, unit)
        systemd = True
    else:
        pid, systemd = listener(socket) or 0, False
    if not pid:
        raise StorageError(
            "no Docker daemon answers there",
            where=url,
            cure="Start it, or choose the embedded engine (`slipway.engine: embedded`).",
        )
    return _running(machine, url, describe_process("dockerd", pid, socket), systemd=systemd)


def _embedded(project: Project) -> DockerInstallation:
    service = EmbeddedService(project.root, project.state)
    status = daemon_status(project)
    data = service.data
    return DockerInstallation(
        url=status.url,
        running=status.running,
        data_root=data.resolve(),
        at_rest=data.resolve() if data.is_symlink() else own_data_path(data),
        service=lambda _: service,
        embedded=True,
    )


def _stopped(machine: Machine, url: str, unit: Mapping[str, str]) -> DockerInstallation:
    """systemd's docker.service, which does not run."""
    flags = parse_flags(setup_checks.unit_command(unit, machine)[1:])
    config, settings = _configuration(machine, flags)
    own = _own_namespaces(settings)
    separate = containerd.containerd_at_rest(machine, own) if machine.has_unit(CONTAINERD) else None
    root = Path(str(settings.get("data-root") or machine.at(_DEFAULT_ROOT))).resolve()
    found = DockerInstallation(
        url=url,
        running=False,
        data_root=root,
        at_rest=root,
        service=lambda also: SystemdService.find(containerd=also),
        systemd=True,
        config=config,
        flags=flags,
        containerd=separate,
        own_namespaces=own,
    )
    return replace(found, problem=_problem(found, machine, (), settings))


def _running(
    machine: Machine, url: str, dockerd: DaemonProcess, *, systemd: bool
) -> DockerInstallation:
    info = engine_info(url)  # first: what is no Docker has other options and other files
    security = info.get("SecurityOptions") or ()
    if "name=rootless" in security:
        raise StorageError(
            "this is a rootless Docker; only the one that root runs can be moved", where=url
        )
    flags = parse_flags(dockerd.command[1:])
    config, settings = _configuration(machine, flags)
    own = _own_namespaces(settings)
    separate = containerd.containerd_of(machine, dockerd, settings, own)
    root = Path(info["DockerRootDir"]).resolve()
    tmp = dockerd.environment.get("DOCKER_TMPDIR")

    def service(also: bool) -> Service:
        if systemd:
            return SystemdService.find(containerd=also)
        other = separate.process if also and separate else None
        return ProcessService(dockerd, other, machine.state / installation_key(url))

    found = DockerInstallation(
        url=url,
        running=True,
        data_root=root,
        at_rest=root,
        service=service,
        systemd=systemd,
        config=config,
        flags=flags,
        tmp=Path(tmp) if tmp else None,
        containerd=separate,
        own_namespaces=own,
    )
    return replace(found, problem=_problem(found, machine, security, settings, dockerd.pid))


def _configuration(machine: Machine, flags: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """The configuration file, and its settings with those of the command line.

    dockerd refuses a setting that is in both, so that none is covered.
    """
    config = Path(flags.get("config-file") or machine.daemon_json).resolve()
    return config, {**read_daemon_json(config), **flags}


def _own_namespaces(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """containerd's namespaces that are this Docker's (moby/moby: --containerd-namespace)."""
    containers, plugins = DOCKERS_NAMESPACES
    return (
        str(settings.get("containerd-namespace") or containers),
        str(settings.get("containerd-plugins-namespace") or plugins),
    )


def _problem(
    found: DockerInstallation,
    machine: Machine,
    security: Sequence[str],
    settings: Mapping[str, Any],
    pid: int | None = None,
) -> StorageError | None:
    assert found.config is not None
    socket = found.containerd.socket if found.containerd else None
    units = (DOCKER, CONTAINERD) if found.containerd else (DOCKER,)
    return (
        setup_checks.userns_problem(security, settings)
        or setup_checks.shared_daemon_problem(machine, pid, found.config, found.data_root, socket)
        or (setup_checks.unit_problem(*units) if found.systemd else None)
    )


def engine_of_installation(subject: DockerInstallation, project: Project) -> Engine:
    """A connection; starts nothing. Raises EngineUnavailableError."""
    return connect(project, "embedded" if subject.embedded else subject.url, start=False)
