"""`inv fanout`: ship many images on many machines."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, matrix, pipeline
from slipway.core import UsageError
from slipway.tasks.commands import IMAGE_NAMES, JSON, NAMES, NO_ENGINE, ROOT, task_command

ENGINES = ("slurm", "codebuild", "github")


@task_command(
    positional=[],
    images=NAMES,
    repeatable=("sbatch",),
    help={
        **IMAGE_NAMES,
        **JSON,
        **NO_ENGINE,
        "engine": f"who has the machines: {', '.join(ENGINES)}",
        "region": "AWS region to take bases from and push to",
        "target": "registry to push to: ecr",
        "compression": "of the .sqsh, as for ship",
        "unlocked": "build also on bases that no lock pins",
        "no_sqsh": "write no .sqsh",
        "dir": "slurm: folder of the run, on storage that all nodes mount",
        "workers": "slurm: how many workers at a time",
        "scratch": "slurm: folder on each node's own disk (default: SLURM_TMPDIR, TMPDIR or /tmp)",
        "sbatch": "slurm: more for sbatch, e.g. partition=cpu or cpus-per-task=8; repeatable",
        "role": "codebuild, github: ARN of the role that builds have",
        "source": "codebuild: s3://BUCKET/PREFIX for the checkout and the cache",
        "compute": "codebuild: size of each build's machine",
        "repository": "github: OWNER/NAME (default: the checkout's origin)",
        "ref": "github: branch (default: the one that is checked out)",
        "resume": "slurm: do what an earlier run in --dir has left or failed",
        "detach": "do not wait for the end",
        "plan": "say what would be done, and do nothing",
    },
)
def fanout_start(
    c: Context,
    names: list[str],
    engine: str = "",
    region: str = "",
    target: str = "",
    compression: str = "",
    unlocked: bool = False,
    no_engine: bool = False,
    no_sqsh: bool = False,
    base_from: str = "",
    dir: str = "",
    workers: str = "4",
    scratch: str = "",
    sbatch: list[str] = [],  # noqa: B006 - invoke's own empty list
    role: str = "",
    source: str = "",
    compute: str = "BUILD_GENERAL1_MEDIUM",
    repository: str = "",
    ref: str = "",
    resume: bool = False,
    detach: bool = False,
    plan: bool = False,
    json: bool = False,
) -> None:
    """Ship images on many machines, each made once: inv fanout NAMES --engine slurm --dir DIR."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r}: one of {', '.join(ENGINES)}")
    settings = pipeline.Settings.of(c.config, region=region, target=target)
    flags = cluster.ShipFlags(
        region=settings.region or "",
        target=settings.target,
        compression=compression,
        unlocked=unlocked,
        no_engine=no_engine,
        no_sqsh=no_sqsh,
        base_from=base_from,
    )
    checkout = pipeline.Checkout.at(ROOT)
    images = matrix.select_images(checkout.matrix, names)
    inputs = checkout.inputs(images)
    planned = cluster.plan_fanout(images, flags, lambda image: inputs[image.name].build_id)
    if engine == "github":
        workflow = cluster.WorkflowOptions(repository, ref, role, detach, plan)
        cluster.run_github_fanout(ROOT, planned, workflow, as_json=json)
        return
    if engine == "codebuild":
        batch = cluster.CodeBuildOptions(role, source, compute, detach, plan)
        prefix = checkout.matrix.repository_prefix
        cluster.run_codebuild_fanout(ROOT, planned, batch, images, prefix=prefix, as_json=json)
        return
    array = cluster.ArrayOptions(dir, workers, scratch, tuple(sbatch), resume, detach, plan)
    cluster.run_slurm_fanout(ROOT, planned, array, as_json=json)


@task_command(help={**JSON, "dir": "folder of the run"})
def fanout_status(c: Context, dir: str, json: bool = False) -> None:
    """What became of each image of a run on Slurm so far."""
    cluster.show_fanout_run(dir, as_json=json)


@task_command(
    positional=[],
    images=NAMES,
    help={**IMAGE_NAMES, **JSON, "dir": "folder with NAME.json and NAME.log of each `ship --json`"},
)
def fanout_table(c: Context, names: list[str], dir: str, json: bool = False) -> None:
    """What became of images that were shipped apart from each other, as in jobs of a CI system."""
    checkout = pipeline.Checkout.at(ROOT)
    images = matrix.select_images(checkout.matrix, names)
    inputs = checkout.inputs(images)
    planned = cluster.group_images(images, lambda image: inputs[image.name].build_id)
    cluster.show_collected_results(planned, Path(dir), as_json=json)


@task_command(help={"dir": "folder of the run", "number": "which worker of the run this is"})
def fanout_worker(c: Context, dir: str, number: str = "0") -> None:
    """Take images of a run, one after another, and ship them; a run's script calls it."""
    cluster.work_on_run(ROOT, dir, number)


@task_command(
    help={"batch": "id of a batch in CodeBuild", "region": "AWS region (default: slipway.region)"}
)
def fanout_stop(c: Context, batch: str, region: str = "") -> None:
    """Stop a batch of builds in CodeBuild."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.stop_batch(batch, where)


ns = Collection(
    "fanout", status=fanout_status, stop=fanout_stop, table=fanout_table, worker=fanout_worker
)
ns.add_task(fanout_start, "start", default=True)
