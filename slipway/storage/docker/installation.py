"""The Docker installation to inspect or move: which one, where its data is, how it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from slipway.core import Project, UsageError
from slipway.engine import DEFAULT_URL, Engine, connect, daemon_status, ping
from slipway.storage.docker import config_files, containerd, daemon_process, data_path
from slipway.storage.docker.containerd import Containerd
from slipway.storage.docker.daemon_flags import parse_flags
from slipway.storage.docker.service import EmbeddedService, ProcessService, Service
from slipway.storage.docker.systemd import (
    CONTAINERD,
    DOCKER,
    SystemdService,
    show_unit,
    unit_is_active,
)
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
        try:
            named = {**ContextAPI.kwargs_from_context(), **kwargs_from_env()}
        except DockerException as error:
            raise UsageError(
                f"the Docker settings of this environment are wrong: {error}"
            ) from error
        url = _plain(str(named.get("base_url") or DEFAULT_URL))
        if url == DEFAULT_URL:
            url = machine.docker_url
            installed = machine.systemd and machine.has_unit(DOCKER)
            if ping(url.removeprefix(_UNIX)) is not None and not installed:
                return "embedded"
    if not url.startswith(_UNIX):
        raise UsageError(
            "only a Docker on this machine can be looked after",
            where=url,
            cure="Run this on the machine where it runs, or name its unix socket.",
        )
    return url


def _plain(url: str) -> str:
    """docker-py's own spelling of a URL back in the docker CLI's."""
    return url.replace("http+unix://", _UNIX, 1)


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
    service = EmbeddedService(project)
    found = daemon_status(project)
    data = service.data
    at_rest = data.resolve() if data.is_symlink() else data_path.own_data_path(data)
    return DockerInstallation(
        url=found.url,
        embedded=True,
        running=found.running,
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
    found = show_unit(DOCKER, "MainPID", "ExecStart", "Environment")
    pid = int(found.get("MainPID") or 0)
    if pid:
        socket = Path(url.removeprefix(_UNIX))
        return _system(
            machine, url, daemon_process.describe_process("dockerd", pid, socket), systemd=True
        )
    # Stopped: the command as the unit has it, with its variables not filled in.
    command = found.get("ExecStart", "").partition("argv[]=")[2].partition(" ;")[0].split()
    flags = parse_flags(command[1:])
    config = Path(flags.get("config-file") or machine.daemon_json).resolve()
    settings = config_files.parse_daemon_json(config.read_text(), config) if config.exists() else {}
    root = Path(flags.get("data-root") or settings.get("data-root") or DEFAULT_ROOT).resolve()
    return DockerInstallation(
        url=url,
        embedded=False,
        running=False,
        data_root=root,
        at_rest=root,
        config=config,
        flags=flags,
        tmp=None,
        containerd=containerd.is_stopped(machine) if machine.has_unit(CONTAINERD) else None,
        systemd=True,
        service=lambda also: SystemdService.find(containerd=also),
    )


def _system(
    machine: Machine, url: str, dockerd: daemon_process.DaemonProcess, *, systemd: bool
) -> DockerInstallation:
    flags = parse_flags(dockerd.command[1:])
    config = Path(flags.get("config-file") or machine.daemon_json).resolve()
    with closing(docker.DockerClient(base_url=url)) as client:
        info = client.info()
    if "name=rootless" in (info.get("SecurityOptions") or ()):
        raise StorageError(
            "this is a rootless Docker; only the one that root runs can be moved", where=url
        )
    root = Path(info["DockerRootDir"]).resolve()
    separate = containerd.containerd_of(machine, dockerd, flags)
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
    )


def engine_of_installation(subject: DockerInstallation, project: Project) -> Engine:
    """A connection; starts nothing. Raises EngineUnavailableError."""
    return connect(project, "embedded" if subject.embedded else subject.url, start=False)


def is_active(subject: DockerInstallation) -> bool:
    """Whether the daemon runs at this moment."""
    if subject.systemd:
        return unit_is_active(DOCKER)
    if subject.embedded:
        return subject.service(False).running()
    return daemon_process.listener(Path(subject.url.removeprefix(_UNIX))) is not None
