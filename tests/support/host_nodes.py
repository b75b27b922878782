"""A Slurm whose nodes run this machine's Python, and whose commands this machine has.

The nodes' containers have munge and Slurm, and no network but a loopback of their own. What a job
runs as SLIPWAY_VENV's python is this machine's, entered by chroot with the node's processes; what
listens on this machine's loopback is forwarded to theirs. So nodes have no disk of their own here:
each worker has a folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from docker.models.containers import Container

CLONE_NEWNET = 0x40000000

#: The second time, in the chroot, there is no /host.
PYTHON = """\
#!/bin/bash
[[ -d /host/proc ]] || exec {python} "$@"
exec unshare --mount --propagation private bash -c \\
    'mount -t proc proc /host/proc && exec chroot /host /usr/bin/env --chdir="$0" "$@"' \\
    "$PWD" {python} "$@"
"""
COMMAND = """\
#!/bin/bash
exec nsenter --target {pid} --mount --uts --ipc --net --pid -- /usr/bin/{name} "$@"
"""
SLURM = ("sbatch", "squeue", "scancel", "sinfo", "sacct", "scontrol")


def write_host_venv(folder: Path, lock: Path) -> Path:
    """What `inv` takes for its virtual environment."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    shutil.copy(lock, folder / ".requirements.lock")
    return folder


def write_slurm_commands(folder: Path, controller: Container) -> Path:
    """Slurm's commands, run beside the controller."""
    controller.reload()
    folder.mkdir()
    for name in SLURM:
        path = folder / name
        path.write_text(COMMAND.format(pid=_pid(controller), name=name))
        path.chmod(0o755)
    return folder


def _pid(container: Container) -> int:
    """The container's first process as this machine numbers it; its engine may do so otherwise."""
    told = str(container.attrs["State"]["Pid"])
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            numbers = next(
                line.split()[1:]
                for line in status.read_text().splitlines()
                if line.startswith("NSpid:")
            )
            started = status.with_name("cmdline").read_bytes()
            if numbers[-2:] == [told, "1"] and b"/node/boot\0" in started:
                return int(numbers[0])
    raise AssertionError(f"process {told} of {container.name} is not seen from here")


@contextlib.contextmanager
def forwarded_ports(container: Container, ports: Sequence[int]) -> Iterator[None]:
    """Have these ports of this machine's loopback on the loopback of a container's network."""
    container.reload()
    listeners = [_listen_in(_pid(container), port) for port in ports]
    try:
        for listener, port in zip(listeners, ports, strict=True):
            threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        yield
    finally:
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _listen_in(pid: int, port: int) -> socket.socket:
    """A socket stays in the network namespace of the thread that made it."""
    made: list[socket.socket] = []

    def listen() -> None:
        with Path(f"/proc/{pid}/ns/net").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return made[0]


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_forward, args=(client, port), daemon=True).start()


def _forward(client: socket.socket, port: int) -> None:
    """Both ways, until one side has nothing more to say: no protocol here closes half."""
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        others = {client: server, server: client}
        while True:
            for source in select.select([*others], [], [])[0]:
                try:
                    data = source.recv(1 << 16)
                    others[source].sendall(data)
                except OSError:
                    return
                if not data:
                    return


def slurm_environment(commands: Path, venv: Path) -> dict[str, str]:
    """What `inv fanout` needs beside AWS's variables."""
    return {"PATH": f"{commands}:{os.environ['PATH']}", "SLIPWAY_VENV": str(venv)}
