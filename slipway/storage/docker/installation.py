"""The Docker installation to inspect or move: which one, where its data is, how it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from slipway.storage.docker import (
    config_files,
    containerd,
    daemon_process,
    data_path,
    setup_checks,
)
from slipway.storage.docker.containerd import Containerd
from slipway.storage.docker.daemon_flags import parse_flags
from slipway.storage.docker.data_folder import DOCKERS_NAMESPACES
from slipway.storage.docker.inventory import DataFolders
from slipway.storage.docker.service import EmbeddedService, ProcessService, Service
from slipway.storage.docker.systemd import CONTAINERD, DOCKER, SystemdService, show_unit
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine

DEFAULT_ROOT = "/var/lib/docker"
_UNIX = "unix://"


@dataclass(frozen=True)
class DockerInstallation:
    """A Docker on this machine.

    `data_root` is where its data is now; `at_rest` the path of the same while it is stopped.
    `flags` are dockerd's own; `tmp` is DOCKER_TMPDIR where it is set. `containerd` is a separate
    one, None where dockerd starts its own below its data-root.
    """

    url: str
    embedded: bool
    running: bool
    data_root: Path
    at_rest: Path
    config: Path | None
    flags: dict[str, str]
    tmp: Path | None
    containerd: Containerd | None
    systemd: bool
    service: Callable[[bool], Service]
    """The service; the argument tells whether its containerd is to be stopped as well."""
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
    """Everything about the daemon that `choose` named. Starts nothing, changes nothing."""
    if url == "embedded":
        return _embedded(project)
    socket = Path(url.removeprefix(_UNIX))
    pid = daemon_process.listener(socket)
    if pid is None and not (machine.systemd and url == machine.docker_url):
        raise StorageError(
            "no Docker daemon answers there",
            where=url,
            cure="Start it, or choose the embedded engine (`slipway.engine: embedded`).",
        )
    if machine.systemd and url == machine.docker_url:
        return _by_systemd(machine, url)
    assert pid is not None
    dockerd = daemon_process.describe_process("dockerd", pid, socket)
    return _system(machine, url, dockerd, systemd=False)


def _embedded(project: Project) -> DockerInstallation:
    service = EmbeddedService(project.root, project.state)
    status = daemon_status(project)
    data = service.data
    at_rest = data.resolve() if data.is_symlink() else data_path.own_data_path(data)
    return DockerInstallation(
        url=status.url,
        embedded=True,
        running=status.running,
        data_root=data.resolve(),
        at_rest=at_rest,
        config=None,
        flags={},
        tmp=None,
        containerd=None,
        systemd=False,
        service=lambda _: service,
    )


def _by_systemd(machine: Machine, url: str) -> DockerInstallation:
    unit = show_unit(DOCKER, "MainPID", "ExecStart", "Environment", "EnvironmentFiles")
    pid = int(unit.get("MainPID") or 0)
    if pid:
        socket = Path(url.removeprefix(_UNIX))
        return _system(
            machine, url, daemon_process.describe_process("dockerd", pid, socket), systemd=True
        )
    flags = parse_flags(setup_checks.unit_command(unit, machine)[1:])
    config, settings = _configuration(machine, flags)
    root = Path(str(settings.get("data-root") or machine.at(DEFAULT_ROOT))).resolve()
    separate = containerd.is_stopped(machine) if machine.has_unit(CONTAINERD) else None
    units = (DOCKER, CONTAINERD) if separate else (DOCKER,)
    return DockerInstallation(
        url=url,
        embedded=False,
        running=False,
        data_root=root,
        at_rest=root,
        config=config,
        flags=flags,
        tmp=None,
        containerd=separate,
        systemd=True,
        service=lambda also: SystemdService.find(containerd=also),
        own_namespaces=_own_namespaces(settings),
        problem=setup_checks.userns_problem((), settings)
        or setup_checks.shared_daemon_problem(
            machine, None, config, root, separate.socket if separate else None
        )
        or setup_checks.unit_problem(*units),
    )


def _configuration(machine: Machine, flags: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """The configuration file, and its settings with those of the command line.

    dockerd refuses a setting that is in both, so that none is covered.
    """
    config = Path(flags.get("config-file") or machine.daemon_json).resolve()
    return config, {**config_files.read_daemon_json(config), **flags}


def _own_namespaces(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """containerd's namespaces that are this Docker's (moby/moby: --containerd-namespace)."""
    containers, plugins = DOCKERS_NAMESPACES
    return (
        str(settings.get("containerd-namespace") or containers),
        str(settings.get("containerd-plugins-namespace") or plugins),
    )


def _system(
    machine: Machine, url: str, dockerd: daemon_process.DaemonProcess, *, systemd: bool
) -> DockerInstallation:
    info = engine_info(url)  # first: what is no Docker has other options and other files
    flags = parse_flags(dockerd.command[1:])
    config, settings = _configuration(machine, flags)
    if "name=rootless" in (info.get("SecurityOptions") or ()):
        raise StorageError(
            "this is a rootless Docker; only the one that root runs can be moved", where=url
        )
    root = Path(info["DockerRootDir"]).resolve()
    own = _own_namespaces(settings)
    separate = containerd.containerd_of(machine, dockerd, settings, own)
    units = (DOCKER, CONTAINERD) if separate else (DOCKER,)
    tmp = dockerd.environment.get("DOCKER_TMPDIR")

    def service(also: bool) -> Service:
        if systemd:
            return SystemdService.find(containerd=also)
        other = separate.process if also and separate else None
        return ProcessService(dockerd, other, machine.state / installation_key(url))

    return DockerInstallation(
        url=url,
        embedded=False,
        running=True,
        data_root=root,
        at_rest=root,
        config=config,
        flags=flags,
        tmp=Path(tmp) if tmp else None,
        containerd=separate,
        systemd=systemd,
        service=service,
        own_namespaces=own,
        problem=setup_checks.userns_problem(info.get("SecurityOptions") or (), settings)
        or setup_checks.shared_daemon_problem(
            machine, dockerd.pid, config, root, separate.socket if separate else None
        )
        or (setup_checks.unit_problem(*units) if systemd else None),
    )


def engine_of_installation(subject: DockerInstallation, project: Project) -> Engine:
    """A connection; starts nothing. Raises EngineUnavailableError."""
    return connect(project, "embedded" if subject.embedded else subject.url, start=False)
