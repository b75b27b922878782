"""One Distribution process (docker-registry): its configuration, start, proof of identity, end."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, cast

import requests

from slipway.core import (
    Credentials,
    command_line,
    end_process,
    read_pid,
    spawn,
    write_atomic,
)
from slipway.registry.errors import RegistryError, RegistryUnavailableError
from slipway.registry.local.local_login import hashed_file, make_login, read_login

ADDRESS = "127.0.0.1"
PATIENCE_S = 15.0
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
IDENTITY = "X-Slipway-Registry"
"""In every answer, with a value of this folder's own: so that a registry of somebody else on our
port is never taken for ours."""


class RegistryServer:
    """The process whose state is under `root`. The caller sees to it that nobody else is at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yml"
        self.pid_file = root / "pid"
        self.log = root / "registry.log"
        self.storage = root / "storage"
        self._log_start: int | None = None  # where the log of our own launch begins

    @property
    def port(self) -> int | None:
        """The port in the configuration, None where there is none yet."""
        port = str(self._section("http").get("addr", "")).rpartition(":")[2]
        return int(port) if port.isdigit() else None

    @property
    def login(self) -> Credentials | None:
        """Who may pull and push; None where it asks nobody, or where the login is not ours alone.

        It is for our own process only: ask `pid` before it is sent to the port.
        """
        return read_login(self.root) if self._section("auth") else None

    @property
    def pid(self) -> int | None:
        """The process; None where the file is stale, since the id may be another program's now."""
        pid = read_pid(self.pid_file)
        return pid if pid is not None and self._is_ours(pid) else None

    def configure(self, port: int) -> None:
        """Write the configuration. It is JSON, which is YAML, which is what Distribution reads."""
        make_login(self.root)
        http = self._section("http")
        purge = {"enabled": True, "age": "24h", "interval": "24h", "dryrun": False}
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},  # `registry.prune`
                "maintenance": {"uploadpurging": purge},  # uploads that were cut short
            },
            "http": {
                "addr": f"{ADDRESS}:{port}",
                # Signs the state of an upload: kept, so that one can go on after a restart.
                "secret": http.get("secret") or secrets.token_hex(16),
                "headers": {IDENTITY: [self._identity() or secrets.token_hex(8)]},
            },
            "auth": {"htpasswd": {"realm": "slipway", "path": str(hashed_file(self.root))}},
        }
        write_atomic(self.config, json.dumps(config, indent=2) + "\n", mode=0o600)

    def launch(self, binary: str) -> None:
        """Start it as a process that outlives us; `wait` tells what became of it."""
        self.storage.mkdir(parents=True, exist_ok=True)
        # It outlives who started it and needs none of his logins; and Distribution takes REGISTRY_*
        # over its configuration file.
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        pid = spawn([binary, "serve", str(self.config)], log=self.log, env=environment)
        write_atomic(self.pid_file, f"{pid}\n")

    def wait(self) -> bool:
        """Until it answers. False: it ended because somebody had taken the port.

        Also False for one that somebody else launched and that ended. Raises
        RegistryUnavailableError where our own ended for another reason, or where it stays silent.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.answers():
                return True
            if self.pid is None:
                if self._log_start is None:
                    return False
                output = self.log.read_bytes()[self._log_start :].decode(errors="replace").strip()
                if "address already in use" in output:
                    return False
                raise RegistryUnavailableError(
                    f"the local registry ended at once: {output[-300:] or 'it output nothing'}",
                    where=str(self.log),
                    cure="The log file may say why; `inv registry.up` tries again.",
                )
            time.sleep(0.05)
        raise RegistryUnavailableError(
            f"the local registry does not answer on port {self.port} after {PATIENCE_S:.0f} s",
            where=str(self.log),
            cure="`inv registry.down`, then `inv registry.up`.",
        )

    def answers(self) -> bool:
        """Whether this registry, and none other, answers on its port, and asks for a login.

        It gets none: what answers may be another program.
        """
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy between us and loopback
                answer = session.get(f"http://{ADDRESS}:{self.port}/v2/", timeout=2.0)
        except requests.exceptions.RequestException:
            return False
        return answer.status_code == 401 and answer.headers.get(IDENTITY) == self._identity()

    def stop(self) -> bool:
        """SIGTERM, then SIGKILL. False: it was not running."""
        pid = self.pid
        if pid is not None and not end_process(pid, self._is_ours, grace_s=5.0):
            raise RegistryError(f"the local registry (pid {pid}) does not end", where=str(self.log))
        self.pid_file.unlink(missing_ok=True)
        return pid is not None

    def _is_ours(self, pid: int) -> bool:
        # By whichever way its folder was named to who launched it: a link may lead there.
        config = os.path.realpath(self.config)
        return any(os.path.realpath(word) == config for word in command_line(pid))

    def _section(self, name: str) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", json.loads(self.config.read_text())[name])
        except (OSError, ValueError, LookupError):
            return {}

    def _identity(self) -> str | None:
        values = self._section("http").get("headers", {}).get(IDENTITY)
        return str(values[0]) if values else None
