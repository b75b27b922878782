"""A machine in a folder: real daemons with their own sockets, data and configuration, real disks.

Everything is under a short folder of /tmp (a unix socket's path has at most 107 bytes), and all of
it is ended, unmounted and removed again, whatever a test does to it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import (
    Project,
    command_line,
    find_process,
    read_mount_table,
    spawn,
    start_time,
    wait_until,
)
from slipway.engine import Engine, connect
from slipway.engine.endpoint import ping
from slipway.storage import Machine
from slipway.storage.docker.daemon_process import listener

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q"),
}


@dataclass
class Disk:
    """A file system of its own in a file, mounted."""

    place: Path
    image: Path
    options: str = "loop"

    def mount(self, *, read_only: bool = False) -> None:
        options = f"{self.options},ro" if read_only else self.options
        self.place.mkdir(parents=True, exist_ok=True)
        run("mount", "-o", options, str(self.image), str(self.place))

    def unmount(self) -> None:
        run("umount", "--lazy", str(self.place))

    def free(self) -> int:
        stats = os.statvfs(self.place)
        return stats.f_bfree * stats.f_frsize


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@dataclass
class Box:
    """The folder, as a machine, with a dockerd that a test may start in it."""

    folder: Path
    search: str = os.environ["PATH"]
    config: dict[str, object] = field(default_factory=dict)
    containerd: bool = False
    flags: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> Machine:
        return Machine(self.folder)

    @property
    def project(self) -> Project:
        return Project(self.folder / "checkout", self.folder / "checkout" / ".slipway")

    @property
    def socket(self) -> Path:
        return self.machine.at("/var/run/docker.sock")

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def containerd_socket(self) -> Path:
        return self.machine.at("/run/containerd/containerd.sock")

    @property
    def data_root(self) -> Path:
        return self.machine.at("/var/lib/docker")

    @property
    def containerd_root(self) -> Path:
        return self.machine.at("/var/lib/containerd")

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    def configure(self) -> None:
        """Write both configuration files, as a packager or a person would have."""
        text = json.dumps({"data-root": str(self.data_root), **self.config}, indent=4)
        for path in (self.machine.daemon_json, self.socket, self.containerd_socket):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.machine.daemon_json.write_text(text + "\n")
        self.machine.containerd_toml.parent.mkdir(parents=True, exist_ok=True)
        self.machine.containerd_toml.write_text(
            f'version = 2\nroot = "{self.containerd_root}"\n'
            f'state = "{self.folder}/cstate"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n\n'
            f'[grpc]\n  address = "{self.containerd_socket}"\n'
        )

    def containerd_command(self) -> list[str]:
        return ["containerd", "--config", str(self.machine.containerd_toml)]

    def dockerd_command(self) -> list[str]:
        command = [
            "dockerd",
            f"--config-file={self.machine.daemon_json}",
            f"--host={self.url}",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/d.pid",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            *self.flags,
        ]
        if self.containerd:
            command.append(f"--containerd={self.containerd_socket}")
        return command

    def start(self) -> None:
        if self.containerd and listener(self.containerd_socket) is None:
            self._start(
                self.containerd_command(), lambda: listener(self.containerd_socket) is not None
            )
        # dockerd listens before it has opened its data, and may still end of that.
        self._start(self.dockerd_command(), lambda: ping(self.socket, timeout_s=1.0) is None)

    def _start(self, command: list[str], serves: Callable[[], bool]) -> None:
        environment = {"PATH": self.search, "HOME": "/root", **self.environment}
        pid = spawn(command, log=self.log, env=environment)
        wait_until(lambda: start_time(pid) is None or serves(), 60)
        assert start_time(pid) is not None, self.log.read_text()[-2000:]
        assert serves(), self.log.read_text()[-2000:]

    def pid(self) -> int:
        pid = listener(self.socket)
        assert pid is not None, "no daemon runs"
        return pid

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        connected = connect(self.project, self.url)
        try:
            yield connected
        finally:
            connected.close()

    def owns(self, pid: int) -> bool:
        program, *arguments = command_line(pid) or [""]
        mine = any(str(self.folder) in argument for argument in arguments)
        return mine and Path(program).name.startswith(("dockerd", "containerd"))

    def kill_daemons(self) -> None:
        """End every daemon and shim of this box, and unmount what they mounted."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in list(find_process(self.owns)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if wait_until(lambda: not any(find_process(self.owns)), 5):
                break
        for target in reversed(mounted_in(self.folder)):
            if "/docker/" in target or "/exec/" in target or "/cstate/" in target:
                subprocess.run(["umount", "--lazy", target], check=False)

    @contextmanager
    def disk(
        self, fstype: str = "ext4", size: int = 400 << 20, at: str = "/mnt/big"
    ) -> Iterator[Disk]:
        """A new disk, mounted in the box."""
        with disk(
            self.machine.at(at),
            self.folder / f"{at.strip('/').replace('/', '-')}.img",
            fstype,
            size,
        ) as new:
            yield new


@contextmanager
def disk(place: Path, image: Path, fstype: str, size: int) -> Iterator[Disk]:
    with image.open("wb") as file:
        file.truncate(size)
    run(*MKFS[fstype], str(image))
    new = Disk(place, image)
    new.mount()
    try:
        yield new
    finally:
        while str(place) in mounted_in(place.parent):
            new.unmount()
        image.unlink()


def mounted_in(folder: Path) -> list[str]:
    return [str(m.target) for m in read_mount_table() if folder in m.target.parents]


@contextmanager
def box(parent: str = "/tmp", **settings: Any) -> Iterator[Box]:
    """A box with nothing started in it."""
    folder = Path(tempfile.mkdtemp(prefix="slip-", dir=parent))
    new = Box(folder, **settings)
    (folder / "checkout").mkdir()
    new.configure()
    try:
        yield new
    finally:
        new.kill_daemons()
        for target in reversed(mounted_in(folder)):
            subprocess.run(["umount", "--lazy", target], check=False)
        shutil.rmtree(folder)
