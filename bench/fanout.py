"""What many workers cost beside one, and how long a thousand images take on a hundred of them.

    python -m bench.fanout work                 # 64 images on 6 bases: by one worker, by four
    python -m bench.fanout simulate             # 1,000 images on 60 bases by 1, 10 and 100 workers

`work` runs the workers of `inv fanout` as processes on this machine, without Slurm: real ships, a
real registry behind ECR's rules, real .sqsh files. "CPU" is of all ships, "sent" what the registry
was sent, "made" how many layers were compiled. Before a row nothing is left of the one before.

Processes that share this machine's cores and caches take more CPU for the same work, whatever they
do. So four workers are held to one that has the same company: four runs at once that have nothing
in common, each of 64 images by one worker, of which the mean is shown ("1 of 4").

`simulate` runs the code by which workers choose and take images (leases and results are real files
on this disk), and lets durations pass on a clock of its own: SHIP_S for an image, BASE_S once for a
base's layers, during which others that need them wait, and COPY_S for a worker that copies them.
"bound" is the time in which no plan could do better: until the first bases are there no more
workers than bases have work, then all have. "files" is the time that choosing and taking took
here, in all.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import ImageResult
from slipway.cluster.fanout.run_folder import RunFolder, begin_run, open_run
from slipway.cluster.fanout.worker import FanoutWorker
from slipway.core import Lease
from slipway.pipeline import Checkout
from tests.support.clones import Clone
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.host_nodes import write_host_venv
from tests.support.registry.ecr_front_door import REGION, Door, aws_api, ecr
from tests.support.registry.open_registry import open_registry

BASES, GROUPS = 6, 11  # 66 images, of which 64 are made
BASE_BYTES = 20_000_000
IMAGES = 64

#: Measured for a base of 2.4 GB without an engine (docs/lab/registry.md): a new image, 26 wheels of
#: which nobody has made the layers; first sight of a base, and its bytes sent to another registry.
SHIP_S, BASE_S = 22.8, 78.0 + 37.6
COPY_S = 5.0  # notes of a base and layers of wheels, 100 MB from the shared folder


@dataclass(frozen=True)
class Row:
    """One run."""

    workers: int
    wall: float
    cpu: float
    sent: int
    made: int
    per_image: float

    def __str__(self) -> str:
        return (
            f"{self.workers:>7}  {self.wall:>6.1f} s  {self.cpu:>6.1f} s  "
            f"{self.sent / 1e6:>7.1f} MB  {self.made:>4}  {self.per_image:.2f} s"
        )


@contextlib.contextmanager
def registry(root: Path) -> Iterator[tuple[str, Door]]:
    """A registry for bases, and an ECR before it."""
    with open_registry(root / "registry") as host, aws_api() as api, ecr(host, api) as door:
        yield host, door


def work(workers: int, images: int) -> Row:
    """One run of that many workers, from nothing."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as name:
        root = Path(name)
        with registry(root) as (host, door):
            put_bases(host, "bench/b", BASES, BASE_BYTES, root)
            clone = Clone.make(root / "clone", root / "state")
            names = write_matrix(clone, host, "bench/b", BASES, GROUPS)[:images]
            checkout = Checkout.at(clone.root)
            matrix = {image.name: image for image in checkout.matrix.images}
            inputs = checkout.inputs([matrix[name] for name in names])
            plan = FanoutPlan(
                tuple(
                    PlannedImage(name, matrix[name].base.name, inputs[name].build_id)
                    for name in names
                ),
                ("--region", REGION, "--target", "ecr", "--no-engine", "--unlocked"),
            )
            run = begin_run(root / "run", plan, clone.root, resume=False)
            venv = write_host_venv(root / "venv", clone.root / "requirements.lock")
            started, before = time.monotonic(), _children_cpu()
            processes = [_start_worker(run, clone, door, venv, n) for n in range(workers)]
            codes = [process.wait() for process in processes]
            wall, cpu = time.monotonic() - started, _children_cpu() - before
            results = list(run.all_results())
            assert codes == [0] * workers, [result for result in results if not result.ok]
            assert [result.name for result in results] == names
            return Row(
                workers,
                wall,
                cpu,
                door.faults.uploaded(),
                len([*(run.path / "parts" / "compiled-layers").iterdir()]),
                statistics.median(result.cpu_seconds for result in results),
            )


def work_beside(runs: int, images: int) -> Row:
    """The mean of so many runs at once, each by one worker and for itself."""
    command = [sys.executable, "-m", "bench.fanout", "row", "--workers", "1", f"--images={images}"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(runs)
    ]
    rows = [Row(**json.loads(process.communicate()[0])) for process in processes]
    return Row(
        1,
        statistics.mean(row.wall for row in rows),
        statistics.mean(row.cpu for row in rows),
        round(statistics.mean(row.sent for row in rows)),
        max(row.made for row in rows),
        statistics.mean(row.per_image for row in rows),
    )


def _start_worker(
    run: RunFolder, clone: Clone, door: Door, venv: Path, number: int
) -> subprocess.Popen[bytes]:
    """With a checkout and a state of its own."""
    place = clone.root.with_name(f"checkout{number}")
    Clone.make(place, place)
    _copy_matrix(clone.root, place)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(place)]
    return subprocess.Popen(
        [*command, "fanout.worker", str(run.path), "--number", str(number)],
        cwd=place,
        env={
            **environment,
            **_aws(door),
            "PYTHONPATH": "",
            "SLIPWAY_STATE": str(place.with_name(f"state{number}")),
            "SLIPWAY_SHARED": str(run.path / "parts"),
            "SLIPWAY_VENV": str(venv),
        },
        stderr=(run.logs / f"worker-{number}.log").open("w"),
    )


def _copy_matrix(source: Path, target: Path) -> None:
    """Have the worker's checkout be the run's."""
    (target / "versions.yaml").write_bytes((source / "versions.yaml").read_bytes())
    (target / "files").mkdir()
    for path in (source / "files").iterdir():
        (target / "files" / path.name).write_bytes(path.read_bytes())


def _aws(door: Door) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": door.api,
        "AWS_ENDPOINT_URL_ECR": door.api,
    }


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Simulation:
    """Workers on a clock of their own, choosing and taking by the real code."""

    def __init__(self, root: Path, images: int, bases: int, workers: int) -> None:
        planned = [PlannedImage(f"image{n:04}", f"base{n % bases:02}", "b") for n in range(images)]
        plan = FanoutPlan(tuple(sorted(planned, key=lambda image: (image.base, image.name))), ())
        (root / "checkout").mkdir()
        self.run: RunFolder = begin_run(root / "run", plan, root / "checkout", resume=False)
        self.run = open_run(root / "run")
        self.workers = [FanoutWorker(self.run, root, f"w{n}", n, 86400) for n in range(workers)]
        self.ready: dict[str, float] = {}  # base -> when its layers are there
        self.files = 0.0
        self.waited = 0.0

    def go(self) -> float:
        """The makespan."""
        now = 0.0
        going: list[tuple[float, int, PlannedImage | None, Lease | None]] = [
            (0.0, number, None, None) for number in range(len(self.workers))
        ]
        heapq.heapify(going)
        while going:
            now, number, image, lease = heapq.heappop(going)
            if image is not None and lease is not None:
                self.workers[number]._bases.add(image.base)
                self.run.publish(ImageResult(image.name, image.base, "b", None, f"w{number}"))
                lease.release()
            chosen = self._take(self.workers[number])
            if chosen is not None:
                until = self._end(now, self.workers[number], chosen[0])
                heapq.heappush(going, (until, number, *chosen))
        return now

    def _take(self, worker: FanoutWorker) -> tuple[PlannedImage, Lease] | None:
        started = time.perf_counter()
        try:
            for image in worker._order(left) if (left := self.run.images_left()) else ():
                if (lease := worker._leases.take(image.name)) is not None:
                    return image, lease
            return None
        finally:
            self.files += time.perf_counter() - started

    def _end(self, now: float, worker: FanoutWorker, image: PlannedImage) -> float:
        if image.base in worker._bases:
            return now + SHIP_S
        if image.base not in self.ready:
            self.ready[image.base] = now + BASE_S
            return now + BASE_S + SHIP_S
        wait = max(0.0, self.ready[image.base] - now)
        self.waited += wait
        return now + wait + COPY_S + SHIP_S


def simulate(images: int, bases: int, workers: int) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as name:
        simulation = Simulation(Path(name), images, bases, workers)
        makespan = simulation.go()
        assert len([*simulation.run.all_results()]) == images
    total = images * SHIP_S + bases * BASE_S
    bound = BASE_S + (total - min(workers, bases) * BASE_S) / workers
    return (
        f"{images:>6}  {bases:>5}  {workers:>7}  {makespan:>8.0f} s  {bound:>8.0f} s  "
        f"{makespan / bound:.2f}  {simulation.waited:>7.0f} s  {simulation.files:>6.2f} s"
    )


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("work", "row", "simulate"))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--images", type=int, default=IMAGES)
    flags = parser.parse_args()
    if flags.what == "row":
        print(json.dumps(asdict(work(flags.workers, flags.images))))
        return
    if flags.what == "work":
        print("workers      wall       CPU         sent  made  CPU an image")
        print(f"{work(1, flags.images)}  alone", flush=True)
        single = work_beside(flags.workers, flags.images)
        print(f"{single}  1 of {flags.workers}", flush=True)
        together = work(flags.workers, flags.images)
        print(f"{together}  together", flush=True)
        cpu, sent = together.cpu / single.cpu, together.sent / single.sent
        print(json.dumps({"cpu": round(cpu, 3), "sent": round(sent, 3)}))
        return
    print("images  bases  workers  makespan     bound  ratio   waited   files")
    for bases, workers in ((60, 1), (60, 10), (60, 100), (6, 100)):
        print(simulate(1000, bases, workers), flush=True)


if __name__ == "__main__":
    main()
