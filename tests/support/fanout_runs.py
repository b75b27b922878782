"""A fan-out on the Slurm of the tests, and what came through the registry's door meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.clones import Clone
from tests.support.host_nodes import (
    forwarded_ports,
    slurm_environment,
    write_host_venv,
    write_slurm_commands,
)
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.slurm_cluster import SlurmCluster

WORKERS = 4


class FanoutRun:
    """A run on the cluster, and what came through the registry's door meanwhile."""

    def __init__(self, cluster: SlurmCluster, door: Door, clone: Clone, names: list[str]) -> None:
        self.cluster, self.door, self.clone, self.names = cluster, door, clone, names
        self.folder = cluster.fsx / "run"
        self.tags = {name: tag_of(clone, name) for name in names}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.clone.start(
            *("fanout", *self.names, "--engine", "slurm", "--dir", str(self.folder)),
            *("--workers", str(WORKERS), "--scratch", str(self.cluster.root / "scratch")),
            *("--sbatch", "partition=three", "--no-engine", "--unlocked", "--json"),
            *("--region", REGION, "--target", "ecr", *words),
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int, list[dict[str, object]], str]:
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return process.returncode, json.loads(out) if out else [], err

    def holder(self, name: str) -> str:
        """The number of the worker that has an image."""
        for lease in sorted((self.folder / "leases").glob(f"{name}.*"), reverse=True):
            with contextlib.suppress(OSError):
                return lease.read_text().strip().rpartition("#")[2]
        return ""

    def kill_worker(self, number: str) -> None:
        """All processes of a task of the array at once, as a node that is gone takes them along.

        `scancel --signal=KILL` reaches the script alone where Slurm follows parents, as here.
        """
        job = (self.folder / "job").read_text().strip()
        words = {f"SLURM_ARRAY_JOB_ID={job}".encode(), f"SLURM_ARRAY_TASK_ID={number}".encode()}
        killed = 0
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if words <= set(path.read_bytes().split(b"\0")):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    killed += 1
        assert killed >= 3  # the script, the worker, the ship

    @property
    def told(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in logs)

    def manifests_put(self) -> Counter[str]:
        """How often an image was put whole, by tag; what refers to it has no tag of a build."""
        puts = self.door.faults.requests("PUT", f"/manifests/({'|'.join(self.tags.values())})$")
        return Counter(put.path.rpartition("/")[2] for put in puts if put.status == 201)


def tag_of(clone: Clone, name: str) -> str:
    (shown,) = json.loads(clone.inv("matrix.show", name).stdout)
    return str(shown["tag"]).replace("<build id>", shown["build_id"][:12])


@contextlib.contextmanager
def fanout_run(
    cluster: SlurmCluster, door: Door, data: str, names: list[str], lease: int
) -> Iterator[FanoutRun]:
    """A run of the images `names` of the cluster's clone.

    `data` is the host behind the door, `lease` after how many seconds a worker counts as dead.
    """
    commands = write_slurm_commands(cluster.root / "bin", cluster.members["c0"])
    venv = write_host_venv(cluster.root / "venv", cluster.clone.root / "requirements.lock")
    environment = {**slurm_environment(commands, venv), "SLIPWAY_LEASE_S": str(lease)}
    clone = Clone(cluster.clone.root, cluster.clone.state, environment)
    ports = [int(host.rpartition(":")[2]) for host in (data, door.host, door.api)]
    with forwarded_ports(cluster.members["c0"], ports):
        yield FanoutRun(cluster, door, clone, names)
        cluster.run("scancel", "--user=root")
