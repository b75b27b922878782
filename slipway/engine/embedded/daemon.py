"""The embedded engine: a dockerd and a containerd of Slipway's own.

They share nothing with a system Docker: own sockets, data, configuration file and containerd, no
bridge and no firewall rules. A containerd is started even where the system has one, because
dockerd takes /run/containerd/containerd.sock whenever that file exists, dead or alive
(moby/moby:cmd/dockerd/daemon_unix.go, systemContainerdRunning).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import (
    ProcessError,
    Project,
    read_pid,
    service_lock,
    spawn,
    start_time,
    wait_until,
)
from slipway.engine.embedded import cleanup
from slipway.engine.embedded.layout import EmbeddedPaths, embedded_paths
from slipway.engine.embedded.reserve import reserve_space
from slipway.engine.endpoint import ping
from slipway.engine.errors import EngineUnavailableError

_START_S = 60.0  # a daemon with many images and a slow disk
_STOP_S = 30.0  # dockerd gives its containers 10 s

# What a daemon needs from our environment; the rest (cloud credentials, say) stays out of a
# process that lives for days.
_PASSED_ON = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PROGRAMS = ("dockerd", "containerd", "runc")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class EmbeddedStatus:
    """What is known of the embedded engine. `pid` is dockerd's, None unless it runs."""

    running: bool
    pid: int | None
    url: str
    data_root: Path
    log: Path


def check_engine_host(*, root: bool, absent: Sequence[str]) -> None:
    """Raise EngineUnavailableError, with the cure, unless an embedded engine can be started.

    `absent` are the programs that are not installed.
    """
    if not root:
        also = f" and the programs {', '.join(absent)}" if absent else ""
        raise EngineUnavailableError(
            f"the embedded engine needs root{also}",
            cure="Run the same command as root (`sudo ./inv ...`), or start Docker.",
        )
    if absent:
        raise EngineUnavailableError(
            f"the embedded engine needs {', '.join(absent)}, not installed here",
            cure="`./inv setup` installs what is needed.",
        )


def start_daemon(project: Project) -> str:
    """Start the engine unless it runs, healing what a crash left; returns its URL.

    Returns when it answers. Two calls at once start one engine. Raises EngineUnavailableError
    with the daemon's own last error lines.
    """
    search = _environment()["PATH"]
    absent = [name for name in _PROGRAMS if shutil.which(name, path=search) is None]
    check_engine_host(root=os.geteuid() == 0, absent=absent)
    paths = embedded_paths(project)
    with service_lock(paths.home, "the embedded engine", EngineUnavailableError):
        if _running(paths):
            return paths.url
        cleanup.remove_mounts(paths)
        _start(paths)
    return paths.url


def stop_daemon(project: Project) -> bool:
    """Stop the engine and remove what it leaves in the kernel; False if none ran."""
    paths = embedded_paths(project)
    if not paths.home.exists():
        return False
    with service_lock(paths.home, "the embedded engine", EngineUnavailableError):
        ran = _running(paths)
        cleanup.remove_mounts(paths, grace_s=_STOP_S)
        return ran


def daemon_status(project: Project) -> EmbeddedStatus:
    """Whether the engine runs and answers, and where its files are. Changes nothing."""
    paths = embedded_paths(project)
    running = _running(paths)
    pid = read_pid(paths.dockerd_pid) if running else None
    return EmbeddedStatus(running, pid, paths.url, paths.data_root, paths.log)


def _running(paths: EmbeddedPaths) -> bool:
    """Both processes are there, are ours, and the daemon answers."""
    dockerd, containerd = read_pid(paths.dockerd_pid), read_pid(paths.containerd_pid)
    if dockerd is None or containerd is None:
        return False
    if not (paths.owns(dockerd) and paths.owns(containerd)):
        return False
    return ping(paths.socket) is None


def _start(paths: EmbeddedPaths) -> None:
    paths.create()
    reserve_space(paths.data_root)
    try:
        containerd = spawn(paths.containerd_command(), log=paths.log, env=_environment())
        paths.containerd_pid.write_text(f"{containerd}\n")
        _wait(paths, containerd, "containerd", paths.containerd_socket.is_socket)
        # dockerd writes its own pid file, which it wants to find absent.
        dockerd = spawn(paths.dockerd_command(), log=paths.log, env=_environment())
        _wait(paths, dockerd, "dockerd", lambda: ping(paths.socket) is None)
    except BaseException as error:  # Ctrl-C too: no half engine stays
        cleanup.remove_mounts(paths)
        if isinstance(error, ProcessError):
            raise EngineUnavailableError(error.what) from error
        raise


def _wait(paths: EmbeddedPaths, pid: int, name: str, ready: Callable[[], bool]) -> None:
    def ended() -> bool:
        # Not told by the program's name: some hosts have a script in its place, which becomes it.
        return start_time(pid) is None

    wait_until(lambda: ready() or ended(), _START_S)
    if ready():
        return
    state = "stopped at once" if ended() else "does not answer"
    raise EngineUnavailableError(
        f"the embedded engine's {name} {state}; it says:\n" + paths.last_errors(),
        where=str(paths.log),
        cure="The embedded engine needs root, cgroups, and an ext4 or xfs disk for its data: "
        "SLIPWAY_STATE moves them to another one.",
    )


def _environment() -> dict[str, str]:
    names = [*_PASSED_ON, *_PROXIES, *(name.lower() for name in _PROXIES)]
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"}
