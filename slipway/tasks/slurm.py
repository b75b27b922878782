"""`inv slurm`: scripts for a Slurm cluster."""

from __future__ import annotations

import sys

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, pipeline
from slipway.tasks.commands import ROOT, after_dashes, task_command


@task_command(
    images="name",
    repeatable=("mount", "env", "launch", "sbatch", "srun"),
    help={
        "name": "the image",
        "nodes": "how many nodes",
        "instance": "their type, e.g. ml.p5.48xlarge",
        "flavour": "torchrun (DeepSpeed, too), fsdp, smp or recipes; auto: smp for SMP images",
        "runtime": "pyxis, or enroot where Slurm has no plugin for it",
        "sqsh": "path of the .sqsh on the cluster (default: the newest export)",
        "check": "of the .sqsh. once: size on all nodes, content on one; nodes: both on all; size",
        "output": "file to write (default: NAME.sbatch here; - for stdout)",
        "job-name": "default: NAME",
        "time": "time limit, as for sbatch",
        "signal": "seconds before it at which training is told to save and stop",
        "requeue": "how often the job may begin again, after its time limit or a lost node",
        "spares": "of the nodes, how many wait to take the place of one that is lost or hangs",
        "keep": "keep an unpacked image on its node, by its digest, for the next job",
        "workdir": "folder on the cluster where SCRIPT starts (default: where you submit)",
        "mount": "SRC, SRC:DST or SRC:DST:ro, for the container; repeatable",
        "env": "NAME=VALUE, or NAME to take the value from where you submit; repeatable",
        "launch": "option of the launcher, e.g. checkpoint-dir=/fsx/ck; repeatable",
        "sbatch": "more for sbatch, e.g. gres=gpu:8; repeatable",
        "srun": "more for srun, e.g. mpi=pmix; repeatable",
    },
)
def slurm_script(
    c: Context,
    name: str,
    nodes: str = "",
    instance: str = "",
    flavour: str = "auto",
    runtime: str = "pyxis",
    sqsh: str = "",
    check: str = "once",
    output: str = "",
    job_name: str = "",
    time: str = "",
    signal: str = "300",
    requeue: str = "0",
    spares: str = "0",
    keep: bool = False,
    workdir: str = "",
    mount: list[str] = [],  # noqa: B006 - invoke's own empty list
    env: list[str] = [],  # noqa: B006
    launch: list[str] = [],  # noqa: B006
    sbatch: list[str] = [],  # noqa: B006
    srun: list[str] = [],  # noqa: B006
) -> None:
    """Write an sbatch file: inv slurm.script NAME --nodes 2 --instance TYPE -- SCRIPT ARGS..."""
    request = cluster.ScriptRequest(
        nodes=nodes,
        instance=instance,
        words=tuple(after_dashes(sys.argv)),
        flavour=flavour,
        runtime=runtime,
        check=check,
        job_name=job_name,
        time=time,
        signal=signal,
        requeue=requeue,
        spares=spares,
        keep=keep,
        workdir=workdir,
        mounts=tuple(mount),
        env=tuple(env),
        launch=tuple(launch),
        sbatch=tuple(sbatch),
        srun=tuple(srun),
    )
    cluster.write_script(
        ROOT,
        name,
        request,
        current_build_id=pipeline.Checkout.at(ROOT).build_id_of,
        sqsh=sqsh,
        output=output,
    )


ns = Collection("slurm", script=slurm_script)
