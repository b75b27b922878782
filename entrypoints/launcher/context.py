"""Everything that a command is told: platform, options, script, hyperparameters."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import options
from launcher.causes import LaunchUsageError
from launcher.data import find_source
from launcher.options import LaunchOptions
from launcher.platforms import (
    AttemptPlace,
    MlDir,
    NodePool,
    Topology,
    decode_hyperparameters,
    find_ml_dir,
    first_topology,
    local_topology,
    make_pool,
    read_json,
    read_place,
    sagemaker_topology,
    script_hyperparameters,
    slurm_topology,
    to_arguments,
)
from launcher.ranks import ScriptCommand, read_script_command

SAGEMAKER, SLURM, LOCAL = "sagemaker", "slurm", "local"


@dataclass(frozen=True)
class Context:
    """What this launch is about, before anything has been looked at or started.

    `module`: `script` is the name of a module (python -m). `pool`: all nodes of a job with spares,
    of which `topology` has those that train; `place`: this launcher's own below that of a pool.
    """

    platform: str
    settings: LaunchOptions
    env: Mapping[str, str]
    ml: MlDir
    hyperparameters: Mapping[str, Any]
    topology: Topology
    script: str
    args: tuple[str, ...]
    cwd: Path
    python: str
    module: bool = False
    pool: NodePool | None = None
    place: AttemptPlace | None = None

    @property
    def failure_file(self) -> Path | None:
        """Where the cause of a failure is left; None where nobody would read it."""
        return self.ml.failure if self.platform == SAGEMAKER else None


def detect_platform(env: Mapping[str, str]) -> str:
    """The platform that started this container."""
    if "SLURM_JOB_ID" in env and "SLURM_NODEID" in env:
        return SLURM
    if (find_ml_dir(env).config / "resourceconfig.json").exists():
        return SAGEMAKER
    return LOCAL


def gather_context(
    platform: str, flags: Mapping[str, str], words: Sequence[str], env: Mapping[str, str]
) -> Context:
    """Read all inputs; UsageError for anything wrong in them."""
    ml = find_ml_dir(env)
    raw = read_json(ml.config / "hyperparameters.json") if platform == SAGEMAKER else {}
    hyperparameters = decode_hyperparameters(raw)
    settings = options.resolve_options(flags, env, hyperparameters)
    script = _script(settings, words, env, hyperparameters)
    to_come = bool(find_source(env, hyperparameters, ml.code))
    path, cwd = locate_script(script.script, platform, ml, to_come=to_come, module=script.module)
    topology = find_topology(platform, settings, env, ml, hyperparameters)
    place = read_place(env)
    source = settings.values["spares"].source.replace("default", "--spares")
    pool = None if place else make_pool(topology, settings.number("spares"), source)
    if place is not None:
        topology = place.replace_in(topology)
    elif pool is not None:
        topology = first_topology(topology, pool)
    return Context(
        platform=platform,
        settings=settings if place is None else _attempt_settings(settings),
        env=env,
        ml=ml,
        hyperparameters=hyperparameters,
        topology=topology,
        script=path,
        args=script.args,
        cwd=cwd,
        python=script.python or sys.executable,
        module=script.module,
        pool=pool,
        place=place,
    )


def _attempt_settings(settings: LaunchOptions) -> LaunchOptions:
    """Below a launcher with spares, which begins again itself, and has somebody for a hung node."""
    changed = settings.changed("--spares", max_restarts="0")
    return changed if settings.given("on-hang") else changed.changed("--spares", on_hang="stop")


def _script(
    settings: LaunchOptions,
    words: Sequence[str],
    env: Mapping[str, str],
    hyperparameters: Mapping[str, Any],
) -> ScriptCommand:
    """The script, and its arguments: the command line's, else the hyperparameters.

    A script alone on the command line is SDK v3's way to name it: its arguments are the
    hyperparameters all the same.
    """
    given = tuple(to_arguments(script_hyperparameters(hyperparameters)))
    if words:
        command = read_script_command(words, os.path.isfile)
        return replace(command, args=command.args or given)
    script = (
        settings.text("script")
        or env.get("SAGEMAKER_PROGRAM")
        or str(hyperparameters.get("sagemaker_program") or "")
    )
    return ScriptCommand(script, given)


def locate_script(
    script: str, platform: str, ml: MlDir, *, to_come: bool, module: bool = False
) -> tuple[str, Path]:
    """The script's path, and the directory to start it in.

    A relative script on SageMaker is looked for where SDK v2 and SDK v3 put the source directory,
    and starts there, as under sagemaker-training; `to_come` says that the launcher has yet to
    unpack it.
    """
    here = Path.cwd()
    if not script or Path(script).is_absolute() or platform != SAGEMAKER:
        return script, here
    if module:
        codes = [place for place in (ml.code, ml.data / "code") if place.is_dir()]
        return script, codes[0] if codes else here
    for directory in (ml.code, ml.data / "code", here):
        if (directory / script).is_file():
            return script, directory
    return script, ml.code if to_come or ml.code.is_dir() else here


def find_topology(
    platform: str,
    settings: LaunchOptions,
    env: Mapping[str, str],
    ml: MlDir,
    hyperparameters: Mapping[str, Any],
) -> Topology:
    """The nodes of the job."""
    if platform == SAGEMAKER:
        groups = hyperparameters.get("sagemaker_distribution_instance_groups") or []
        return sagemaker_topology(
            read_json(ml.config / "resourceconfig.json"),
            job=env.get("TRAINING_JOB_NAME") or settings.text("job") or "sagemaker-local",
            groups=[str(group) for group in groups],
        )
    if platform == SLURM:
        return slurm_topology(env, own_steps=settings.number("spares") > 0)
    hosts = [host.strip() for host in settings.text("hosts").split(",") if host.strip()]
    # Alone, two launches at once must not share a name, and with it their scratch directory.
    nameless = "local" if hosts else f"local-{os.getpid()}"
    return local_topology(
        hosts=hosts,
        node_rank=settings.number("node-rank"),
        job=settings.text("job") or nameless,
    )


def need_script(context: Context, *, to_come: bool) -> None:
    """UsageError unless there is a script, or the archive that holds it is still `to_come`."""
    if not context.script:
        raise LaunchUsageError(
            "this job names no training script. Give it after -- (launch sagemaker -- train.py), "
            "or as LAUNCH_SCRIPT, or as the hyperparameter sagemaker_program"
        )
    if context.module:
        return  # the user's Python finds it, or says that it does not
    if not to_come and not (context.cwd / context.script).is_file():
        raise LaunchUsageError(f"there is no script {context.script} in {context.cwd}")
