"""`inv fanout` on a real Slurm: every image is made once, whatever becomes of its workers.

Real are Slurm, workers, leases, the registry's data and the .sqsh files. The nodes' Python and
disk are this machine's (tests/support/host_nodes.py), ECR's API is moto's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine
from tests.support.clones import Clone
from tests.support.fanout_runs import FanoutRun, fanout_run
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.registry.ecr_front_door import Door
from tests.support.slurm_cluster import SlurmCluster, node_image, running, wait

pytest_plugins = ["tests.support.registry.fixtures"]

BASES, GROUPS = 2, 4
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


@pytest.fixture
def run(
    cluster: SlurmCluster, door: Door, data_registry: str, tmp_path: Path
) -> Iterator[FanoutRun]:
    put_bases(data_registry, "fanout/b", BASES, NOISE, tmp_path)
    names = write_matrix(cluster.clone, data_registry, "fanout/b", BASES, GROUPS)
    with fanout_run(cluster, door, data_registry, names, LEASE_S) as made:
        yield made


def test_every_image_is_made_once_though_a_worker_dies_one_is_slow_and_one_image_fails(
    run: FanoutRun,
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
