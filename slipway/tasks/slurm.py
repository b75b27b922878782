"""`inv slurm`: scripts and jobs for a Slurm cluster."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, pipeline
from slipway.core import Project
from slipway.tasks.commands import JSON, ROOT, after_dashes, task_command

if TYPE_CHECKING:
    from slipway.cluster import ScriptRequest

SCRIPT_LISTS = ("mount", "env", "launch", "sbatch", "srun")
SCRIPT = {
    "name": "the image",
    "sqsh": "path of the .sqsh on the cluster (default: the newest export)",
    "nodes": "how many nodes",
    "instance": "their type, e.g. ml.p5.48xlarge",
    "flavour": "torchrun (DeepSpeed, too), fsdp, smp or recipes; auto: smp for SMP images",
    "runtime": "pyxis, or enroot where Slurm has no plugin for it",
    "check": "of the .sqsh. once: size on all nodes, content on one; nodes: both on all; size",
    "job-name": "default: NAME",
    "time": "time limit, as for sbatch",
    "signal": "seconds before it at which training is told to save and stop",
    "requeue": "how often the job may begin again, after its time limit or a lost node",
    "spares": "of the nodes, how many wait to take the place of one that is lost or hangs",
    "keep": "keep an unpacked image on its node, by its digest, for the next job",
    "fetch": "to the nodes' own disks first: shared (where --sqsh is), s3://..., registry://HOST/REPO:TAG"
    " (after sqsh --push), or sbcast, where nodes may not reach each other",
    "fetch-to": "folder of a node's own for it (default: its local disk)",
    "workdir": "folder on the cluster where SCRIPT starts (default: where you submit)",
    "mount": "SRC, SRC:DST or SRC:DST:ro, for the container; repeatable",
    "env": "NAME=VALUE, or NAME to take the value from where you submit; repeatable",
    "launch": "option of the launcher, e.g. checkpoint-dir=/fsx/ck; repeatable",
    "sbatch": "more for sbatch, e.g. gres=gpu:8; repeatable",
    "srun": "more for srun, e.g. mpi=pmix; repeatable",
}
SSH = {"ssh": "the head node, for ssh with your own configuration (default: this machine)"}
JOB = {"job": "its number", **SSH}


def script_request(
    nodes: str = "",
    instance: str = "",
    flavour: str = "auto",
    runtime: str = "pyxis",
    check: str = "once",
    job_name: str = "",
    time: str = "",
    signal: str = "300",
    requeue: str = "0",
    spares: str = "0",
    keep: bool = False,
    fetch: str = "",
    fetch_to: str = "",
    workdir: str = "",
    mount: list[str] = [],  # noqa: B006 - invoke's own empty list
    env: list[str] = [],  # noqa: B006
    launch: list[str] = [],  # noqa: B006
    sbatch: list[str] = [],  # noqa: B006
    srun: list[str] = [],  # noqa: B006
) -> ScriptRequest:
    """What the flags of a script ask for; its words stand after the dashes."""
    return cluster.ScriptRequest(
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
        fetch=fetch,
        fetch_to=fetch_to,
        workdir=workdir,
        mounts=tuple(mount),
        env=tuple(env),
        launch=tuple(launch),
        sbatch=tuple(sbatch),
        srun=tuple(srun),
    )


def with_script_flags(body: Callable[..., None]) -> Callable[..., None]:
    """A task whose `**script` are the flags of `script_request`: invoke goes by the signature."""
    mine = inspect.signature(body).parameters.values()
    flags = inspect.signature(script_request).parameters.values()
    own = [parameter for parameter in mine if parameter.kind is not parameter.VAR_KEYWORD]
    body.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    return body


@task_command(
    images="name",
    repeatable=SCRIPT_LISTS,
    help={**SCRIPT, "output": "file to write (default: NAME.sbatch here; - for stdout)"},
)
@with_script_flags
def slurm_script(c: Context, name: str, sqsh: str = "", output: str = "", **script: Any) -> None:
    """Write an sbatch file: inv slurm.script NAME --nodes 2 --instance TYPE -- SCRIPT ARGS..."""
    cluster.write_script(
        ROOT,
        name,
        script_request(**script),
        current_build_id=pipeline.Checkout.at(ROOT).build_id_of,
        sqsh=sqsh,
        output=output,
    )


@task_command(
    images="name",
    repeatable=SCRIPT_LISTS,
    help={
        **SCRIPT,
        **SSH,
        "folder": "where to submit, on storage that all nodes share (default: this folder)",
    },
)
@with_script_flags
def slurm_submit(
    c: Context, name: str, sqsh: str = "", ssh: str = "", folder: str = "", **script: Any
) -> None:
    """Write and submit: inv slurm.submit NAME --nodes 2 --instance TYPE -- SCRIPT ARGS..."""
    number = cluster.submit_job(
        ROOT,
        name,
        script_request(**script),
        cluster.SubmitPlace(cluster.HeadNode(ssh), folder),
        current_build_id=pipeline.Checkout.at(ROOT).build_id_of,
        sqsh=sqsh,
    )
    print(number)


@task_command(help={**SSH, **JSON})
def slurm_queue(c: Context, ssh: str = "", json: bool = False) -> None:
    """Your jobs in the queue, and why those wait that do."""
    cluster.show_queue(cluster.HeadNode(ssh), as_json=json)


@task_command(help={**JOB, **JSON})
def slurm_status(c: Context, job: str, ssh: str = "", json: bool = False) -> None:
    """How a job stands: why it failed, how far it came, where its log is."""
    cluster.show_job(cluster.HeadNode(ssh), job, Project.at(ROOT), as_json=json)


@task_command(help={**JOB, "follow": "go on until the job ends"})
def slurm_logs(c: Context, job: str, ssh: str = "", follow: bool = False) -> None:
    """What all nodes of a job have printed."""
    cluster.follow_job(cluster.HeadNode(ssh), job, Project.at(ROOT), follow=follow)


@task_command(
    help={
        **JOB,
        "how": "urg: save, with all the time of --signal; term: as scancel, KillWait to save; "
        "kill: at once",
    }
)
def slurm_stop(c: Context, job: str, ssh: str = "", how: str = "urg") -> None:
    """Have a job save and stop, or end it."""
    cluster.stop_job(cluster.HeadNode(ssh), job, Project.at(ROOT), how=how)


ns = Collection(
    "slurm",
    script=slurm_script,
    submit=slurm_submit,
    queue=slurm_queue,
    status=slurm_status,
    logs=slurm_logs,
    stop=slurm_stop,
)
