"""A containerd beside dockerd: whether there is one, where its root is, who else uses it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import child_processes, command_line, find_process
from slipway.storage.docker.config_files import DEFAULT_ROOT, configured_root, parse_flags
from slipway.storage.docker.daemon_process import DaemonProcess, describe_process, listener
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
    pid = listener(address)
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
    return _described(machine, describe_process("containerd", pid, address), own)


def containerd_at_rest(machine: Machine, own: Collection[str]) -> Containerd:
    """The system's containerd, from its configuration file alone."""
    config = machine.containerd_toml.resolve()
    root = configured_root(read_text_file(config).text) or DEFAULT_ROOT
    socket = machine.at(_SOCKET)
    return Containerd(socket, Path(root).resolve(), config, False, _others(socket, own), None)


def current_root(address: Path) -> Path:
    """The root of the containerd that listens there. Raises StorageError."""
    pid = listener(address)
    if pid is None:
        raise StorageError("containerd does not answer", where=str(address))
    return _described(Machine(), describe_process("containerd", pid, address), ()).root


def _described(machine: Machine, process: DaemonProcess, own: Collection[str]) -> Containerd:
    flags = parse_flags(process.command[1:])
    config = Path(flags.get("config") or machine.containerd_toml).resolve()
    root = flags.get("root") or _effective_root(process.command[0], config)
    return Containerd(
        socket=process.socket,
        root=Path(root).resolve(),
        config=config,
        root_flag="root" in flags,
        others=_others(process.socket, own),
        process=process,
    )


def _effective_root(program: str, config: Path) -> str:
    """The root that containerd itself makes of its file, and of those that it imports."""
    if not config.exists():
        return DEFAULT_ROOT
    done = subprocess.run(
        [program, "--config", str(config), "config", "dump"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    root = configured_root(done.stdout)
    if done.returncode != 0 or root is None:
        raise StorageError(
            f"containerd cannot read its configuration: {done.stderr.strip()}", where=str(config)
        )
    return root


def _program(pid: int) -> str:
    return Path((command_line(pid) or ["?"])[0]).name


def _is_containerd(pid: int) -> bool:
    return _program(pid) == "containerd"


def _others(address: Path, own: Collection[str]) -> tuple[str, ...]:
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
