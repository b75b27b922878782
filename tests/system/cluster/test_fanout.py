"""`inv fanout` on a real Slurm: every image is made once, whatever becomes of its workers.

Real are Slurm, workers, leases, the registry's data and the .sqsh files. The nodes' Python and
disk are this machine's (tests/support/host_nodes.py), ECR's API is moto's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine
from tests.support.clones import Clone
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.host_nodes import (
    forwarded_ports,
    slurm_environment,
    write_host_venv,
    write_slurm_commands,
)
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.slurm_cluster import SlurmCluster, node_image, running, wait

pytest_plugins = ["tests.support.registry.fixtures"]

BASES, GROUPS, WORKERS = 2, 4, 4
LEASE_S = 4
NOISE = 1_000_000


@pytest.fixture(scope="module")
def cluster(
    engine: Engine, shared_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    root = tmp_path_factory.mktemp("fanout")
    (root / "fsx").mkdir()
    clone = Clone.make(root / "clone", root / "state")
    image = node_image(engine, shared_project.state, root / "recipe")
    volumes = {"/": "/host", str(root): str(root)}
    with running(engine, image, root, clone, root / "no-image-0.sqsh", volumes) as made:
        yield made


class Run:
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


@pytest.fixture
def run(cluster: SlurmCluster, door: Door, data_registry: str, tmp_path: Path) -> Iterator[Run]:
    put_bases(data_registry, "fanout/b", BASES, NOISE, tmp_path)
    names = write_matrix(cluster.clone, data_registry, "fanout/b", BASES, GROUPS)
    commands = write_slurm_commands(cluster.root / "bin", cluster.members["c0"])
    venv = write_host_venv(cluster.root / "venv", cluster.clone.root / "requirements.lock")
    environment = {**slurm_environment(commands, venv), "SLIPWAY_LEASE_S": str(LEASE_S)}
    clone = Clone(cluster.clone.root, cluster.clone.state, environment)
    hosts = (data_registry, door.host, door.api)
    ports = [int(host.rpartition(":")[2]) for host in hosts]
    with forwarded_ports(cluster.members["c0"], ports):
        yield Run(cluster, door, clone, names)
        cluster.run("scancel", "--user=root")


def test_every_image_is_made_once_though_a_worker_dies_one_is_slow_and_one_image_fails(
    run: Run,
) -> None:
    """And --resume then does the failed one only."""
    tags = run.tags
    dies, slow, fails = run.names[0], run.names[GROUPS], run.names[-1]
    # The one whose worker dies hangs in the middle until then; the slow one longer than a lease.
    run.door.fault("PUT", f"/manifests/{tags[dies]}", "stall", seconds=60)
    run.door.fault("PUT", f"/manifests/{tags[slow]}", "stall", seconds=3 * LEASE_S)
    refused = run.door.fault(
        "PUT", f"/manifests/{tags[fails]}", "status", count=99, status=403, code="DENIED"
    )
    with run.start() as process:
        hanging = run.door.faults.rules[0]
        wait(lambda: hanging.met == 1 or process.poll() is not None, lambda: run.told)
        assert process.poll() is None, (process.communicate(), run.told)
        victim = run.holder(dies)
        run.kill_worker(victim)
        code, results, errors = run.end(process)
    by_name = {str(result["name"]): result for result in results}
    assert code == 1, (errors, run.told)
    assert {name for name, result in by_name.items() if result["failure"]} == {fails}, run.told
    assert "not allowed to do this" in str(by_name[fails]["failure"])
    assert f"{fails}: " in errors
    assert "--resume does what is left" in errors

    # Taken over from the dead, never from the slow; and nothing was made twice.
    attempts = {name: result["attempt"] for name, result in by_name.items()}
    assert attempts == {name: 2 if name == dies else 1 for name in run.names}
    assert not str(by_name[dies]["worker"]).endswith(f"#{victim}")
    good = [name for name in run.names if name != fails]
    assert run.manifests_put() == {tags[name]: 1 for name in good}
    assert sorted(path.name for path in (run.folder / "sqsh").glob("*.sqsh")) == sorted(
        Path(str(by_name[name]["sqsh"])).name for name in good
    )
    run.cluster.wait_for_nodes()  # every task has ended

    # A base's layer was compiled by one, and sent by one: so was what all images add.
    uploads = run.door.faults.uploaded()
    own = sum(put.received for put in run.door.faults.requests("PUT", "/manifests/"))
    once = BASES * NOISE + 400_000
    assert once < uploads < 1.05 * once + own + len(run.names) * 60_000
    compiled = [*(run.folder / "parts" / "compiled-layers").iterdir()]
    assert len(compiled) == BASES + 2 + GROUPS  # the file of all, the launcher, each group's own

    run.door.faults.seen.clear()
    refused.count = 0
    with run.start() as process:
        code, _, errors = run.end(process)
    assert (code, "this folder has a run already" in errors) == (3, True)
    with run.start("--resume") as process:
        code, results, errors = run.end(process)
    assert code == 0, (errors, run.told)
    assert [result["name"] for result in results if result["failure"]] == []
    assert run.manifests_put() == {tags[fails]: 1}
    assert [path.stem for path in (run.folder / "failed").rglob("*.json")] == [fails]
    assert [*(run.folder / "leases").iterdir()] == []
