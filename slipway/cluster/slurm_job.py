"""From a request to the values of one sbatch file. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from slipway.cluster import (
    launcher_tables,
    option_values,
    training_kinds,
)
from slipway.cluster import (
    launcher_tables as launcher_options,
)
from slipway.cluster.option_values import ContainerMount, JobVariable
from slipway.cluster.sqsh_fetch import SqshFetch, make_sqsh_fetch
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import UsageError
from slipway.matrix import Image

if TYPE_CHECKING:
    from launcher.instances import Instance

RUNTIMES = ("pyxis", "enroot")
CHECKS = ("once", "nodes", "size")
MOST_NODES = 65536
SIGNAL_SECONDS = (60, 65535)  # the upper end is Slurm's own

#: Of the submitting shell, and wrong in a container; unless the user names them.
OUTSIDE = ("LD_PRELOAD", "PYTHONPATH", "PYTHONHOME")

#: Set by the script, or through an option of the task's own.
OWN_SBATCH = frozenset(
    {
        *("nodes", "ntasks", "ntasks-per-node", "job-name", "time", "signal", "requeue"),
        *("no-requeue", "array", "wrap", "wait", "open-mode", "export"),
    }
)
OWN_SRUN = frozenset(
    {*("nodes", "ntasks", "ntasks-per-node", "kill-on-bad-exit", "wait", "export", "auto-resume")}
)


@dataclass(frozen=True)
class ScriptRequest:
    """What was asked for, as text."""

    nodes: str
    instance: str
    words: tuple[str, ...]
    flavour: str = training_kinds.AUTO
    runtime: str = "pyxis"
    check: str = "once"
    job_name: str = ""
    time: str = ""
    signal: str = "300"
    requeue: str = "0"
    spares: str = "0"
    keep: bool = False
    fetch: str = ""
    fetch_to: str = ""
    workdir: str = ""
    mounts: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    launch: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()
    srun: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlurmJob:
    """The values of one sbatch file."""

    name: str
    image: str
    flavour: str
    nodes: int
    instance_type: str
    sqsh: SqshFile
    check: str
    runtime: str
    script: tuple[str, ...]  # the training script and its arguments
    launcher_options: tuple[str, ...]
    env: tuple[JobVariable, ...]
    mounts: tuple[ContainerMount, ...]
    present: tuple[str, ...]
    workdir: str | None  # None: where the job is submitted
    time: str | None
    signal: int  # seconds before the time limit
    requeues: int
    spares: int  # of `nodes`
    keep: bool  # an unpacked image between jobs
    fetch: SqshFetch | None
    sbatch_options: tuple[str, ...]
    srun_options: tuple[str, ...]
    notes: tuple[str, ...]  # for the person who asked

    @property
    def unset(self) -> tuple[str, ...]:
        """What of the submitting shell's environment stays outside."""
        return tuple(n for n in OUTSIDE if n not in {variable.name for variable in self.env})

    @property
    def has_log_dir(self) -> bool:
        """Whether the user says where ranks' output is kept."""
        return any(option.startswith("--log-dir=") for option in self.launcher_options)


def make_slurm_job(
    request: ScriptRequest, image: Image, sqsh: SqshFile, launcher: Path
) -> SlurmJob:
    """Check a request and complete it; UsageError for anything that could not work."""
    instance_type, instance = launcher_tables.find_instance_row(launcher, request.instance)
    training_kinds.check_device(image, instance_type, instance)
    chosen = training_kinds.choose_training_kind(request.flavour, image)
    needs = training_kinds.FLAVOURS[chosen](instance)
    runtime = option_values.one_of_values(request.runtime, "--runtime", RUNTIMES)
    check = option_values.one_of_values(request.check, "--check", CHECKS)
    if not request.words:
        raise UsageError(
            "there is no training script",
            cure="Give it with its arguments after --: ... -- train.py --epochs 3",
        )
    seconds = option_values.whole_number(request.signal, "--signal", *SIGNAL_SECONDS)
    if request.time and option_values.time_limit(request.time) <= seconds:
        raise UsageError(
            f"--time {request.time} is not longer than --signal {seconds}: the job would be told "
            "to save and stop as soon as it starts"
        )
    requeues = option_values.whole_number(request.requeue, "--requeue", 0, 1000)
    nodes = option_values.whole_number(request.nodes, "--nodes", 1, MOST_NODES)
    spares = _spares(request, nodes)
    workdir = option_values.absolute_path(request.workdir, "--workdir") if request.workdir else None
    mounts = tuple(option_values.parse_mount(text) for text in request.mounts)
    options = launcher_options.complete_options(request.launch, instance_type, seconds, launcher)
    if spares:
        options["spares"] = str(spares)
    return SlurmJob(
        name=job_name(request.job_name or image.name),
        image=image.name,
        flavour=needs.title,
        nodes=nodes,
        instance_type=instance_type,
        sqsh=sqsh,
        check=check,
        runtime=runtime,
        script=request.words,
        launcher_options=launcher_options.option_flags(options),
        env=merged_options(needs.env, [option_values.parse_variable(text) for text in request.env]),
        mounts=mounts,
        present=needs.present,
        workdir=workdir,
        time=request.time or None,
        signal=seconds,
        requeues=requeues,
        spares=spares,
        keep=request.keep,
        fetch=make_sqsh_fetch(request.fetch, request.fetch_to, sqsh, launcher),
        sbatch_options=tuple(
            option_values.slurm_option(text, "--sbatch", OWN_SBATCH) for text in request.sbatch
        ),
        srun_options=tuple(
            option_values.slurm_option(text, "--srun", OWN_SRUN) for text in request.srun
        ),
        notes=_notes(request, chosen, instance, options, mounts, launcher),
    )


def _spares(request: ScriptRequest, nodes: int) -> int:
    """How many of the nodes wait."""
    spares = option_values.whole_number(request.spares, "--spares", 0, MOST_NODES)
    if spares == 0:
        return 0
    if nodes == 1:
        raise UsageError(f"--spares {spares}: the job has one node, which has to train")
    if spares >= nodes:
        raise UsageError(
            f"--spares {spares}: of {nodes} nodes none would be left to train",
            cure="--nodes counts all nodes of the job, those that wait among them.",
        )
    if any(text.removeprefix("--").startswith("auto-resume") for text in request.srun):
        raise UsageError(
            f"--spares {spares} with --srun auto-resume: either HyperPod replaces a lost node, or "
            "a spare of the job does"
        )
    return spares


def job_name(text: str) -> str:
    """A job's name, which is also the beginning of its log's."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", text, re.ASCII):
        raise UsageError(f"--job-name {text!r}: letters, digits and . _ + - only")
    return text


def merged_options(
    ours: Sequence[JobVariable], theirs: Sequence[JobVariable]
) -> tuple[JobVariable, ...]:
    """One variable a name, the user's value where there are two."""
    return tuple({variable.name: variable for variable in (*ours, *theirs)}.values())


def _notes(
    request: ScriptRequest,
    flavour: str,
    instance: Instance,
    options: dict[str, str | None],
    mounts: Sequence[ContainerMount],
    launcher: Path,
) -> tuple[str, ...]:
    notes = []
    folder = options.get("checkpoint-dir")
    if folder is not None:
        held = [mount.target for mount in mounts] + ([request.workdir] if request.workdir else [])
        path = PurePosixPath(folder)
        if path.is_absolute() and not any(path.is_relative_to(target) for target in held):
            notes.append(
                f"checkpoint-dir {folder} is on no --mount: unless it is below the folder where "
                "you submit, it is lost with the container"
            )
    again = [
        name
        for name, value in (("--requeue", request.requeue), ("--spares", request.spares))
        if value != "0"
    ]
    if again and options.get("resume") in (None, "off"):
        notes.append(
            f"{again[0]} begins the script anew: it must go on from its own checkpoints, or give "
            "--launch checkpoint-dir=DIR --launch resume=auto"
        )
    if request.spares != "0":
        left = int(request.nodes) - int(request.spares)
        notes.append(f"of {request.nodes} nodes {left} train, and {request.spares} wait")
    family = launcher_tables.instance_family(launcher, request.instance)
    told = any(word.startswith("--fp8") for word in request.words)
    if flavour == "smp" and instance.gpus and not training_kinds.has_fp8(family) and not told:
        notes.append(
            "SMP's example scripts use FP8 unless they are given --fp8 0, and it needs Hopper GPUs "
            f"(p5) or newer; this is {family}"
        )
    return tuple(notes)
