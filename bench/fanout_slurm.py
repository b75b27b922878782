"""A fan-out on a real Slurm: one worker is killed in the middle, one is slow, nothing is lost.

    python -m bench.fanout_slurm

64 images on 6 bases by four workers of an array job, on the Slurm of the tests (Debian's, its nodes
in containers whose Python and disk are this machine's), with a registry behind ECR's rules. The put
of one image hangs until its worker is killed with all its processes, as with a node that is lost;
that of another takes three times as long as a lease. It ends with an error where an image was made
twice or not at all.

"CPU of the controller" is slurmctld's from the submission to the end, with munged's and that of the
command that waits. Needs the embedded engine, hence root.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from slipway.core import Project
from slipway.engine import connect, start_daemon, stop_daemon
from tests.support.clones import Clone
from tests.support.fanout_runs import WORKERS, FanoutRun, fanout_run
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.registry.ecr_front_door import REGION, aws_api, ecr
from tests.support.registry.open_registry import open_registry
from tests.support.slurm_cluster import node_image, running, wait

ROOT = Path(__file__).parents[1]
BASES, GROUPS = 6, 11
IMAGES = 64
BASE_BYTES = 20_000_000
LEASE_S = 6


def cpu_of(name: str) -> float:
    """Seconds of all processes of a name."""
    seconds = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = path.read_text().rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        if before.partition("(")[2] == name:
            seconds += sum(map(int, after.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return seconds


def work(run: FanoutRun) -> dict[str, object]:
    """The run, disturbed; what it cost."""
    dies, slow = run.names[0], run.names[GROUPS]
    run.door.fault("PUT", f"/manifests/{run.tags[dies]}", "stall", seconds=60)
    run.door.fault("PUT", f"/manifests/{run.tags[slow]}", "stall", seconds=3 * LEASE_S)
    hanging, sleeping = run.door.faults.rules
    controller, waiting = cpu_of("slurmctld") + cpu_of("munged"), children_cpu()
    began = time.monotonic()
    with run.start() as process:
        wait(lambda: hanging.met == 1 or process.poll() is not None, lambda: run.told)
        victim = run.holder(dies)
        run.kill_worker(victim)
        code, results, errors = run.end(process)
    wall = time.monotonic() - began
    assert code == 0, (errors, run.told)
    assert sleeping.met == 1
    attempts = {str(result["name"]): result["attempt"] for result in results}
    assert attempts == {name: 2 if name == dies else 1 for name in run.names}, attempts
    assert run.manifests_put() == Counter(run.tags.values())
    assert len([*(run.folder / "sqsh").glob("*.sqsh")]) == len(run.names)
    ships = sum(float(str(result["cpu_seconds"])) for result in results)
    return {
        "images": len(results),
        "workers": Counter(str(result["worker"]).rpartition("#")[2] for result in results),
        "wall": round(wall, 1),
        "cpu of ships": round(ships, 1),
        "cpu of the controller": round(cpu_of("slurmctld") + cpu_of("munged") - controller, 2),
        "cpu of the command": round(children_cpu() - waiting, 2),
        "sent MB": round(run.door.faults.uploaded() / 1e6, 1),
        "layers compiled": len([*(run.folder / "parts" / "compiled-layers").iterdir()]),
    }


def children_cpu() -> float:
    """Of what this process has started and seen the end of."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """See the module's text."""
    state = os.environ.get("SLIPWAY_TEST_STATE")
    project = Project(ROOT, Path(state) if state else ROOT / ".slipway" / "test")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanout-slurm-")))
        stack.callback(stop_daemon, project)
        start_daemon(project)
        engine = connect(project, "embedded")
        stack.callback(engine.close)
        host = stack.enter_context(open_registry(root / "registry"))
        door = stack.enter_context(ecr(host, stack.enter_context(aws_api())))
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": door.api,
            "AWS_ENDPOINT_URL_ECR": door.api,
        }
        put_bases(host, "bench/b", BASES, BASE_BYTES, root)
        (root / "fsx").mkdir()
        clone = Clone.make(root / "clone", root / "state")
        image = node_image(engine, project.state, root / "recipe")
        volumes = {"/": "/host", str(root): str(root)}
        cluster = stack.enter_context(
            running(engine, image, root, clone, root / "no-image-0.sqsh", volumes)
        )
        names = write_matrix(clone, host, "bench/b", BASES, GROUPS)[:IMAGES]
        run = stack.enter_context(fanout_run(cluster, door, host, names, LEASE_S))
        print(json.dumps({"started": WORKERS, **work(run)}), flush=True)


if __name__ == "__main__":
    main()
