"""A systemctl for a box: it keeps systemd's documented rules, and runs real daemons.

    python -m tests.support.storage.systemctl FOLDER ARGUMENT...

No machine of the test suite has systemd as PID 1. What of its behaviour a move depends on is here:
drop-ins count after daemon-reload (systemd.unit(5)); a service that is stopped while its socket
still listens is started by the next client, which here comes at once (systemd.socket(5)); after
three failed starts only reset-failed helps (StartLimitBurst=); stopping a unit stops those that
require it (Requires=). Every call is written to FOLDER/systemctl.log; FOLDER/systemd.json says
what the services' commands, sockets and drop-ins are.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.core import spawn, start_time, wait_until
from slipway.engine import ping
from slipway.storage.docker.daemon_process import listener

DOCKER, SOCKET, CONTAINERD = "docker.service", "docker.socket", "containerd.service"
DEPENDENT = "needs-docker.service"
BURST = 3


class Systemd:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "systemd.json"
        self.state: dict[str, Any] = json.loads(self.path.read_text())

    @staticmethod
    def prepare(folder: Path, services: Mapping[str, Mapping[str, object]]) -> None:
        """Tell it of its services: {unit: {"command": [...], "socket": ..., "drop_in": ...}}."""
        state = {"services": services, "active": {}, "failures": {}, "drop_ins": {}}
        (folder / "systemd.json").write_text(json.dumps(state, default=str))

    def save(self) -> None:
        self.path.write_text(json.dumps(self.state))

    def command(self, unit: str) -> list[str]:
        return list(self.state["services"][unit]["command"])

    def socket(self, unit: str) -> Path:
        return Path(self.state["services"][unit]["socket"])

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    def active(self, unit: str) -> bool:
        if unit in (DOCKER, CONTAINERD):
            return listener(self.socket(unit)) is not None
        return bool(self.state["active"].get(unit))

    def show(self, unit: str, wanted: list[str]) -> int:
        command = " ".join(self.command(DOCKER))
        known = {
            "ActiveState": "active" if self.active(unit) else "inactive",
            "MainPID": str(listener(self.socket(unit)) or 0) if unit == DOCKER else "0",
            "TriggeredBy": SOCKET if unit == DOCKER else "",
            "RequiredBy": DEPENDENT if unit == DOCKER else "",
            "ExecStart": f"{{ path=/usr/sbin/dockerd ; argv[]={command} ; ignore_errors=no ; }}",
        }
        for name in wanted:
            if name in known:
                print(f"{name}={known[name]}")
        return 0

    def stop(self, units: list[str]) -> int:
        for unit in units:
            if unit in (DOCKER, CONTAINERD):
                pid = listener(self.socket(unit))
                if pid is not None:
                    os.kill(pid, signal.SIGTERM)
                    assert wait_until(lambda pid=pid: start_time(pid) is None, 60)  # type: ignore[misc]
            self.state["active"][unit] = False
        if DOCKER in units:
            self.state["active"][DEPENDENT] = False
            if self.state["active"].get(SOCKET):
                self.start([DOCKER])  # the client that knocks
        return 0

    def start(self, units: list[str]) -> int:
        for unit in units:
            if unit in (DOCKER, CONTAINERD) and not self.active(unit):
                if self.state["failures"].get(unit, 0) >= BURST:
                    print(f"{unit}: Start request repeated too quickly.", file=sys.stderr)
                    return 1
                if not self._start(unit):
                    self.state["failures"][unit] = self.state["failures"].get(unit, 0) + 1
                    print(f"Job for {unit} failed because the control process exited with error "
                          "code.", file=sys.stderr)  # fmt: skip
                    return 1
            self.state["active"][unit] = True
        return 0

    def _start(self, unit: str) -> bool:
        environment = {"PATH": os.environ["PATH"], "HOME": "/root"}
        for line in self.state["drop_ins"].get(unit, ()):
            name, _, value = line.partition("=")
            if name == "Environment":
                key, _, setting = shlex.split(value)[0].partition("=")
                environment[key] = setting
            if (
                name == "ExecStartPre"
                and subprocess.run(shlex.split(value), check=False).returncode
            ):
                return False
        pid = spawn(self.command(unit), log=self.log, env=environment)
        socket = self.socket(unit)

        def ready() -> bool:
            if unit == DOCKER:
                return ping(socket, timeout_s=1) is None
            return listener(socket) is not None

        wait_until(lambda: start_time(pid) is None or ready(), 60)
        return start_time(pid) is not None

    def daemon_reload(self) -> int:
        for unit in (DOCKER, CONTAINERD):
            path = Path(self.state["services"][unit]["drop_in"])
            self.state["drop_ins"][unit] = path.read_text().splitlines() if path.exists() else []
        return 0

    def reset_failed(self, units: list[str]) -> int:
        for unit in units:
            self.state["failures"][unit] = 0
        return 0


def main() -> int:
    folder, verb, *rest = sys.argv[1:]
    with Path(folder, "systemctl.log").open("a") as log:
        log.write(" ".join([verb, *rest]) + "\n")
    systemd = Systemd(Path(folder))
    try:
        if verb == "show":
            return systemd.show(rest[0], rest[2].split(","))
        if verb == "status":
            print(systemd.log.read_text()[-500:])
            return 3
        if verb == "daemon-reload":
            return systemd.daemon_reload()
        known = {"stop": systemd.stop, "start": systemd.start, "reset-failed": systemd.reset_failed}
        return known[verb](rest)
    finally:
        systemd.save()


if __name__ == "__main__":
    sys.exit(main())
