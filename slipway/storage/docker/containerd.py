"""A containerd beside dockerd: whether there is one, where its root is, who else uses it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import child_processes, command_line, find_process
from slipway.storage.docker import config_files, daemon_process
from slipway.storage.docker.daemon_flags import parse_flags
from slipway.storage.docker.daemon_process import DaemonProcess
from slipway.storage.docker.data_folder import DOCKERS_NAMESPACES
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.text_files import read_text_file

_SOCKET = "/run/containerd/containerd.sock"


@dataclass(frozen=True)
class Containerd:
    """A separate containerd. `root_flag`: its root is on its command line, not in its file.

    `others` are the namespaces other than Docker's in which containers run ("k8s.io").
    """

    socket: Path
    root: Path
    config: Path
    root_flag: bool
    others: tuple[str, ...]
    process: DaemonProcess | None


def containerd_of(
    machine: Machine,
    dockerd: DaemonProcess,
    settings: Mapping[str, Any],
    own: Collection[str],
) -> Containerd | None:
    """The containerd that this dockerd uses and did not start itself."""
    if any(_is_containerd(child) for child in child_processes(dockerd.pid)):
        return None
    address = Path(str(settings.get("containerd") or machine.at(_SOCKET)))
    pid = daemon_process.listener(address)
    if pid is None:
        raise StorageError(
            "dockerd uses a containerd that does not answer",
            where=str(address),
            cure="Start it, or restart Docker.",
        )
    if not _is_containerd(pid):
        raise StorageError(
            f"something other than containerd listens there ({_program(pid)}, pid {pid})",
            where=str(address),
            cure="A socket that systemd activates is not supported here: start containerd itself.",
        )
    return _described(
        machine, daemon_process.describe_process("containerd", pid, address), address, own
    )


def is_stopped(machine: Machine) -> Containerd:
    """The system's containerd, from its configuration file alone."""
    config = machine.containerd_toml.resolve()
    text = read_text_file(config).text
    root = config_files.configured_root(text) or config_files.DEFAULT_ROOT
    socket = machine.at(_SOCKET)
    return Containerd(socket, Path(root).resolve(), config, False, _others(socket), None)


def current_root(address: Path) -> Path:
    """The root of the containerd that listens there. Raises StorageError."""
    pid = daemon_process.listener(address)
    if pid is None:
        raise StorageError("containerd does not answer", where=str(address))
    process = daemon_process.describe_process("containerd", pid, address)
    flags = parse_flags(process.command[1:])
    config = flags.get("config") or config_files.DEFAULT_CONFIG
    return Path(flags.get("root") or effective_root(process.command[0], Path(config)))


def _described(
    machine: Machine, process: DaemonProcess, address: Path, own: Collection[str]
) -> Containerd:
    flags = parse_flags(process.command[1:])
    config = Path(flags.get("config") or machine.containerd_toml).resolve()
    root = flags.get("root") or effective_root(process.command[0], config)
    return Containerd(
        socket=address,
        root=Path(root).resolve(),
        config=config,
        root_flag="root" in flags,
        others=_others(address, own),
        process=process,
    )


def effective_root(program: str, config: Path) -> str:
    """The root that containerd itself makes of its file, and of those that it imports."""
    if not config.exists():
        return config_files.DEFAULT_ROOT
    done = subprocess.run(
        [program, "--config", str(config), "config", "dump"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    root = config_files.configured_root(done.stdout)
    if done.returncode != 0 or root is None:
        raise StorageError(
            f"containerd cannot read its configuration: {done.stderr.strip()}", where=str(config)
        )
    return root


def _program(pid: int) -> str:
    return Path((command_line(pid) or ["?"])[0]).name


def _is_containerd(pid: int) -> bool:
    return _program(pid) == "containerd"


def _others(address: Path, own: Collection[str] = DOCKERS_NAMESPACES) -> tuple[str, ...]:
    """Namespaces with running containers, from the shims' command lines.

    A shim carries `-namespace NAME -address SOCKET`
    (containerd/containerd:runtime/v2/shim/util.go, Command).
    """

    def is_shim(pid: int) -> bool:
        return _program(pid).startswith("containerd-shim")

    namespaces = set()
    for pid in find_process(is_shim):
        words = command_line(pid)
        pairs = dict(itertools.pairwise(words))
        if pairs.get("-address") == str(address) and "-namespace" in pairs:
            namespaces.add(pairs["-namespace"])
    return tuple(sorted(namespaces.difference(own)))
