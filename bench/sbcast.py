"""Slurm's sbcast over the links of bench.sqsh_fetch: a Slurm of its own, with a slurmd a node.

The controller and sbcast are in the origin's namespace, each slurmd in its node's, with the node's
folder mounted where sbcast writes to, since the nodes share this machine's disk. Needs slurmctld,
slurmd (with several on one machine, as Debian builds it), sbcast and munged.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
ClusterName=bench
SlurmctldHost={host}({origin})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
StateSaveLocation={root}/slurm-state
SlurmdSpoolDir={root}/slurm-spool-%n
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
"""
_PATIENCE_S = 120.0


class SlurmNodes:
    """A Slurm that runs, with node 0, 1, ... in the namespaces sf-n0, sf-n1, ..."""

    def __init__(self, root: Path, origin: str, addresses: Sequence[str]) -> None:
        self.root = root
        self.env = {"PATH": os.environ["PATH"], "SLURM_CONF": str(root / "slurm.conf")}
        self._count = len(addresses)
        self._running: list[subprocess.Popen[bytes]] = []
        lines = [
            f"NodeName=n{number} NodeAddr={address} Port={7000 + number} CPUs=1 State=UNKNOWN"
            for number, address in enumerate(addresses)
        ]
        names = ",".join(f"n{number}" for number in range(self._count))
        lines.append(f"PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP")
        text = _CONFIGURATION.format(host=socket.gethostname(), origin=origin, root=root)
        (root / "slurm.conf").write_text(text + "\n".join(lines) + "\n")
        (root / "slurm-state").mkdir()
        (root / "slot").mkdir()
        (root / "munge.key").write_bytes(os.urandom(128))
        (root / "munge.key").chmod(0o400)

    def start(self) -> None:
        """Until all nodes are idle."""
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        flags = [f"--{flag}={self.root}/munge.{name}" for flag, name in files.items()]
        self._spawn("munged", "--force", "--foreground", *flags)
        _wait(lambda: (self.root / "munge.socket").exists())
        self._spawn(*_in("origin"), "slurmctld", "-D")
        for number in range(self._count):
            folder = self.root / f"n{number}"
            folder.mkdir(exist_ok=True)
            (self.root / f"slurm-spool-n{number}").mkdir()
            bind = f"mount --bind {folder} {self.root}/slot && exec slurmd -D -N n{number}"
            self._spawn(*_in(f"n{number}"), "unshare", "--mount", "sh", "-c", bind)
        _wait(lambda: self._states() == ["idle"] * self._count)

    def _spawn(self, *command: str) -> None:
        process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._running.append(process)

    def _states(self) -> list[str]:
        command = [*_in("origin"), "sinfo", "--Node", "--noheader", "--format=%T"]
        told = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return told.stdout.split()

    def send(self, file: Path, nodes: int) -> float:
        """Seconds that sbcast takes for so many nodes; the file is right on all of them."""
        command = [*_in("origin"), "salloc", "--quiet", f"--nodes={nodes}"]
        script = f"date +%s.%N && sbcast --force {file} {self.root}/slot/{file.name} && date +%s.%N"
        told = subprocess.run(
            [*command, "sh", "-c", script], env=self.env, capture_output=True, text=True, check=True
        )
        first, last = map(float, told.stdout.split())
        for number in range(nodes):
            subprocess.run(["cmp", self.root / f"n{number}" / file.name, file], check=True)
        _wait(lambda: self._states() == ["idle"] * self._count)
        return last - first

    def stop(self) -> None:
        """End all of it."""
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.wait()


def _in(name: str) -> list[str]:
    """Not `ip netns exec`, whose /sys has no control groups: slurmd asks for them as it starts."""
    return ["nsenter", f"--net=/run/netns/sf-{name}"]


def _wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("Slurm has not come up")
        time.sleep(0.2)


@contextmanager
def slurm_nodes(root: Path, origin: str, addresses: Sequence[str]) -> Iterator[SlurmNodes]:
    """The nodes, as long as the block runs."""
    slurm = SlurmNodes(root, origin, addresses)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
