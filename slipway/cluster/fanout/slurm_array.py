"""A run on Slurm: one array job whose tasks are workers; Slurm starts and ends them, no more."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.cluster import option_values, script
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import ImageResult, show_results
from slipway.cluster.fanout.run_folder import RunFolder, begin_run, open_run
from slipway.cluster.fanout.worker import FanoutWorker
from slipway.core import SlipwayError, UsageError, lease_seconds, say, write_atomic

MOST_WORKERS = 1000
"""Slurm's own default for an array's size (slurm.conf, MaxArraySize 1001)."""

#: What we set ourselves.
OWN_SBATCH = ("array", "chdir", "nodes", "ntasks", "output", "error", "open-mode", "parsable")
_POLL_S = 2.0
_ASK_SLURM_S = 20.0
_QUIET_POLLS = 2


@dataclass(frozen=True)
class ArrayOptions:
    """Where and how a run's workers start. `scratch`: a folder on each node's own disk."""

    folder: str = ""
    workers: str = "4"
    scratch: str = ""
    sbatch: tuple[str, ...] = ()
    resume: bool = False
    detach: bool = False
    plan: bool = False


def run_slurm_fanout(root: Path, plan: FanoutPlan, options: ArrayOptions, *, as_json: bool) -> None:
    """Submit a run's workers, wait for them, and print the table.

    Raises SlipwayError where an image failed or was not reached.
    """
    if not options.folder:
        raise UsageError(
            "--dir is missing", cure="A folder for the run, on storage that all nodes mount."
        )
    folder = Path(options.folder).resolve()
    if "," in str(folder) or "%" in str(folder) or "\n" in str(folder):
        raise UsageError(f"--dir {options.folder!r}: Slurm takes no comma and no % in it")
    workers = option_values.whole_number(options.workers, "--workers", 1, MOST_WORKERS)
    command = sbatch_command(folder, min(workers, len(plan.images)), options)
    text = render_worker_script(folder, folder / "checkout-DIGEST.tar", plan, options)
    if options.plan:
        for image in plan.images:
            print(f"{image.name}  on {image.base}  {image.build_id[:12]}")
        print(shlex.join(command))
        print(text)
        return
    is_new = not folder.exists() or not any(folder.iterdir())
    run = begin_run(folder, plan, root, resume=options.resume)
    left = run.images_left()
    if left:
        text = render_worker_script(folder, run.checkout, plan, options)
        write_atomic(folder / "script.sh", text, mode=0o755)
        try:
            job = submit_array(sbatch_command(folder, min(workers, len(left)), options))
        except SlipwayError:
            if is_new:  # else the same command, mended, would be told of a run that never was
                shutil.rmtree(folder, ignore_errors=True)
            raise
        write_atomic(folder / "job", f"{job}\n")
        say(f"job {job}: {min(workers, len(left))} workers, {len(left)} images; {folder}")
        if options.detach:
            say(f"next: ./inv fanout.status {shlex.quote(str(folder))}")
            return
        try:
            wait_for_array(run, job)
        except KeyboardInterrupt:
            say(f"the job goes on: `scancel {job}` ends it, and")
            say(f"next: ./inv fanout.status {shlex.quote(str(folder))}")
            raise
    show_results(plan.images, run.all_results(), as_json=as_json, logs=run.logs)


def show_fanout_run(folder: str, *, as_json: bool) -> None:
    """Print the table of a run as it stands. Raises as `run_slurm_fanout`."""
    run = open_run(Path(folder))
    images, results, going = read_fanout_run(run.path)
    show_results(images, results, as_json=as_json, going=going, logs=run.logs)


def read_fanout_run(folder: Path) -> tuple[Sequence[PlannedImage], list[ImageResult], bool]:
    """The images of a run, the results so far, and whether it goes on. Raises UsageError."""
    run = open_run(folder)
    job = run.path / "job"
    going = bool(run.images_left()) and job.exists() and array_is_alive(job.read_text().strip())
    return run.plan.images, list(run.all_results()), going


def work_on_run(root: Path, folder: str, number: str) -> None:
    """What a worker's process does. Raises SlipwayError where images that it had failed."""
    run = open_run(Path(folder))
    own = option_values.whole_number(number, "--number", 0, MOST_WORKERS)
    name = f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}#{own}"
    worker = FanoutWorker(run, root, name, own, lease_seconds())
    failures = worker.work()
    if failures:
        raise SlipwayError(f"{failures} images failed here", where=str(run.results))


def sbatch_command(folder: Path, workers: int, options: ArrayOptions) -> list[str]:
    """The command that submits a run's array."""
    return [
        "sbatch",
        "--parsable",
        f"--array=0-{workers - 1}",
        "--job-name=slipway-fanout",
        "--nodes=1",
        "--ntasks=1",
        f"--chdir={folder}",
        f"--output={folder}/logs/worker-%a.log",
        "--open-mode=append",
        *(option_values.slurm_option(text, "--sbatch", OWN_SBATCH) for text in options.sbatch),
        str(folder / "script.sh"),
    ]


def render_worker_script(
    folder: Path, checkout: Path, plan: FanoutPlan, options: ArrayOptions
) -> str:
    """What each task of the array runs."""
    return script.render_template(
        "fanout.sh.j2",
        run=str(folder),
        checkout=str(checkout),
        parts=str(folder / "parts"),
        scratch=options.scratch,
        lease=lease_seconds(),
        engine="--no-engine" not in plan.ship,
    )


def submit_array(command: Sequence[str]) -> str:
    """Its job's id. Raises SlipwayError with Slurm's own words."""
    done = _slurm(command)
    if done.returncode != 0:
        raise SlipwayError(
            f"Slurm does not take the job: {done.stderr.strip()}",
            cure="`sinfo` lists partitions and nodes; --sbatch partition=NAME names one.",
        )
    return done.stdout.strip().partition(";")[0]


def wait_for_array(run: RunFolder, job: str) -> None:
    """Until every image has a result or the job has ended, saying what is done."""
    told: set[str] = set()
    asked, quiet = time.monotonic(), 0
    while True:
        left = {image.name for image in run.images_left()}
        for image in run.plan.images:
            if image.name not in left and image.name not in told:
                told.add(image.name)
                result = run.result(image)
                if result is not None:
                    state = "shipped" if result.ok else "FAILED"
                    say(f"{image.name}: {state} by {result.worker} ({len(told)} of {_count(run)})")
        if not left or quiet >= _QUIET_POLLS:
            return
        if time.monotonic() - asked > _ASK_SLURM_S:
            # Twice: what workers wrote last may come after what Slurm says of them.
            asked, quiet = time.monotonic(), 0 if array_is_alive(job) else quiet + 1
        time.sleep(_POLL_S)


def _count(run: RunFolder) -> int:
    return len(run.plan.images)


def array_is_alive(job: str) -> bool:
    """Whether a task of the array waits or runs. A controller that does not answer counts as yes.

    Slurm forgets a job some minutes after its end (MinJobAge), and calls its id invalid then.
    """
    done = _slurm(["squeue", "--noheader", f"--jobs={job}", "--format=%T"])
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _slurm(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # HyperPod and ParallelCluster have them where only login shells look.
    path = f"{os.environ.get('PATH', os.defpath)}:/opt/slurm/bin"
    environment = {**os.environ, "LC_ALL": "C", "PATH": path}
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    except FileNotFoundError as error:
        raise SlipwayError(
            f"{command[0]} is not here: this is no machine of a Slurm cluster",
            cure="Run it on the cluster's head node.",
        ) from error
