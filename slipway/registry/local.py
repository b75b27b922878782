"""The local registry: Debian's docker-registry (Distribution) on loopback, one for a project."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import requests

from slipway.errors import UsageError
from slipway.files import write_atomic
from slipway.paths import Project
from slipway.registry.errors import RegistryError, RegistryUnavailableError
from slipway.registry.model import Target

PORT = 5055
_BINARY = "docker-registry"
_ADDRESS = "127.0.0.1"
_PATIENCE_S = 15.0
_ID_HEADER = "X-Slipway-Registry"
"""In every answer, with a value of this project's own: so that a registry of somebody else on our
port is never taken for ours."""


@dataclass(frozen=True)
class Status:
    """What is known of the local registry. `target` is None where it was never started."""

    running: bool
    target: Target | None
    pid: int | None
    storage: Path
    log: Path


@dataclass(frozen=True)
class _Files:
    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yml"

    @property
    def pid(self) -> Path:
        return self.root / "pid"

    @property
    def log(self) -> Path:
        return self.root / "registry.log"

    @property
    def storage(self) -> Path:
        return self.root / "storage"


def up(project: Project, port: int | None = None) -> Target:
    """The running local registry, started where it is not.

    Without `port` it is the port of the last time, else 5055, else any free one. Two calls at once
    start one registry. Raises UsageError where it runs on another port than the one asked for,
    RegistryError where the binary is missing or `port` is taken, RegistryUnavailableError where it
    does not come up.
    """
    files = _Files(project.registry)
    with _one_at_a_time(files):
        if _pid(files) is not None:
            target = _target(_port(files) or PORT)
            if port is not None and target.host != _host(port):
                raise UsageError(
                    f"the local registry runs on {target.host} already, not on port {port}",
                    cure="`inv registry.down` first.",
                )
            _wait(files, _port(files) or PORT)
            return target
        return _start(files, port)


def down(project: Project) -> bool:
    """Stop the local registry; its images stay on disk. False: it was not running."""
    files = _Files(project.registry)
    with _one_at_a_time(files):
        pid = _pid(files)
        if pid is not None:
            _end(pid, files)
        files.pid.unlink(missing_ok=True)
        return pid is not None


def status(project: Project) -> Status:
    """What is known of the local registry; changes nothing."""
    files = _Files(project.registry)
    port, pid = _port(files), _pid(files)
    running = pid is not None and port is not None and _answers(files, port)
    target = _target(port) if port is not None else None
    return Status(running, target, pid, files.storage, files.log)


def _start(files: _Files, port: int | None) -> Target:
    binary = shutil.which(_BINARY)
    if binary is None:
        raise RegistryError(
            f"the local registry needs {_BINARY}, which is not installed",
            cure="`inv setup` installs it (Debian and Ubuntu: apt-get install docker-registry).",
        )
    for candidate in [port] if port is not None else [_port(files) or PORT, PORT, 0]:
        if not _free(candidate):
            continue
        chosen = candidate or _any_free_port()
        _configure(files, chosen)
        _launch(binary, files)
        if _wait(files, chosen):
            return _target(chosen)
    raise RegistryError(
        f"port {port} of {_ADDRESS} is taken by another program",
        cure="Leave the port out to have a free one chosen.",
    )


def _configure(files: _Files, port: int) -> None:
    """Write the configuration; JSON is YAML, which is what Distribution reads."""
    old = _config(files)
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(files.storage)},
            # An upload that was cut short is of no use after a day.
            "maintenance": {
                "uploadpurging": {
                    "enabled": True,
                    "age": "24h",
                    "interval": "24h",
                    "dryrun": False,
                }
            },
        },
        "http": {
            "addr": _host(port),
            # Signs the state of an upload: kept, so that one can go on after a restart.
            "secret": old.get("http", {}).get("secret") or secrets.token_hex(16),
            "headers": {_ID_HEADER: [_identity(old) or secrets.token_hex(8)]},
        },
    }
    write_atomic(files.config, json.dumps(config, indent=2) + "\n", mode=0o600)


def _launch(binary: str, files: _Files) -> None:
    """Start the registry as a process of its own that outlives us."""
    files.storage.mkdir(parents=True, exist_ok=True)
    log = os.open(files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        environment = {
            # Distribution takes REGISTRY_* over its configuration file.
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REGISTRY_", "OTEL_"))
        }
        # Not subprocess.Popen, whose objects want to be waited for by the process that made them.
        pid = os.posix_spawn(
            binary,
            [binary, "serve", str(files.config)],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(log)
    write_atomic(files.pid, f"{pid}\n")


def _wait(files: _Files, port: int) -> bool:
    """Until it answers. False: it ended because somebody took the port meanwhile."""
    start = files.log.stat().st_size if files.log.exists() else 0
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if _answers(files, port):
            return True
        if _pid(files) is None:
            text = files.log.read_text(errors="replace")[-2000:]
            if "address already in use" in text:
                return False
            last = text.strip().splitlines()[-1:] or ["it said nothing"]
            raise RegistryUnavailableError(
                f"the local registry ended at once: {last[0][-300:]}",
                where=str(files.log),
                cure="The log file says why; `inv registry.down` and `registry.up` start anew.",
            )
        time.sleep(0.05)
    raise RegistryUnavailableError(
        f"the local registry does not answer on {_host(port)} after {_PATIENCE_S:.0f} s",
        where=f"{files.log}, from byte {start}",
        cure="`inv registry.down`, then `inv registry.up`.",
    )


def _answers(files: _Files, port: int) -> bool:
    """Whether our registry, and none other, answers on the port."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy between us and loopback
            answer = session.get(f"http://{_host(port)}/v2/", timeout=2.0)
    except requests.exceptions.RequestException:
        return False
    identity = _identity(_config(files))
    return answer.status_code == 200 and answer.headers.get(_ID_HEADER) == identity


def _pid(files: _Files) -> int | None:
    """The registry's process, None where the file is stale: the id may be another program's now."""
    try:
        pid = int(files.pid.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(files.config) in arguments and state != "Z" else None


def _end(pid: int, files: _Files) -> None:
    """SIGTERM, then SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):  # another process's child: init reaps it
                os.waitpid(pid, os.WNOHANG)
            if _pid(files) is None:
                return
            time.sleep(0.02)
    raise RegistryError(f"the local registry (pid {pid}) does not end", where=str(files.log))


@contextlib.contextmanager
def _one_at_a_time(files: _Files) -> Iterator[None]:
    """Waits for its turn: the other one is starting the very registry that we want."""
    files.root.mkdir(parents=True, exist_ok=True)
    handle = os.open(files.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _config(files: _Files) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(files.config.read_text()))
    except (OSError, ValueError):
        return {}


def _identity(config: dict[str, Any]) -> str | None:
    values = config.get("http", {}).get("headers", {}).get(_ID_HEADER, [None])
    return cast("str | None", values[0])


def _port(files: _Files) -> int | None:
    address = _config(files).get("http", {}).get("addr", "")
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else None


def _host(port: int) -> str:
    return f"{_ADDRESS}:{port}"


def _target(port: int) -> Target:
    return Target("local", "local", _host(port))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ADDRESS, port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])
