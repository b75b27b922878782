"""What a launch would do on this node, computed without side effects."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launcher import caches, dataplan, devices, netenv, rankenv, runners, smenv, source
from launcher import context as contexts
from launcher.context import SAGEMAKER, Context
from launcher.dataplan import DataPlan
from launcher.devices import Gpus
from launcher.rankenv import Change
from launcher.runners import Layout


@dataclass(frozen=True)
class Plan:
    """The decisions that need no other node: runner, ranks here, environment.

    `log_dir` may be on a shared file system; `scratch` is on this node's own disk.
    """

    context: Context
    runner: str
    gpus: Gpus
    nproc: int
    log_dir: Path
    scratch: Path
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    data: DataPlan

    @property
    def done_file(self) -> Path | None:
        """What each rank's done-file begins with."""
        name = self.context.settings.text("done-file")
        return self.log_dir / name if name else None


def make(context: Context) -> Plan:
    """Decide; UsageError if there is no script to decide about."""
    expected = source.archive_uri(context.env, context.hyperparameters, context.ml.code)
    contexts.need_script(context, to_come=bool(expected) and context.platform == SAGEMAKER)
    settings = context.settings
    runner = runners.choose(settings.text("runner"), context.script)
    gpus = devices.count_gpus(context.env)
    asked = settings.text("nproc")
    nproc = runners.default_nproc(runner, gpus.count) if asked == "auto" else int(asked)
    own = Path(
        f"{context.topology.job}-{context.topology.attempt or 0}",
        f"node{context.topology.node_rank}",
    )
    scratch = Path(tempfile.gettempdir(), "launch") / own
    log_dir = (
        Path(settings.text("log-dir")).absolute() / own if settings.text("log-dir") else scratch
    )
    stack = netenv.read_stack()
    profile = settings.text("env-profile") == "auto"
    kind, nodes = instance_type(context), context.topology.nodes
    table = netenv.changes(context.env, kind, stack, nodes) if profile else []
    warnings = netenv.warnings(context.env, kind, stack, nodes) if profile else []
    return Plan(
        context=context,
        runner=runner,
        gpus=gpus,
        nproc=nproc,
        log_dir=log_dir,
        scratch=scratch,
        changes=(*_changes(context, gpus, log_dir, scratch), *table),
        warnings=tuple(warnings),
        data=dataplan.read(settings, context.args, context.ml.model),
    )


def instance_type(context: Context) -> str:
    """As the platform or the user tells it."""
    return context.topology.instance_type or context.settings.text("instance-type")


def _changes(context: Context, gpus: Gpus, log_dir: Path, scratch: Path) -> list[Change]:
    env, topology = context.env, context.topology
    on_slurm = topology.platform == contexts.SLURM
    home = Path(env.get("HOME") or "/root")
    changes = [
        *rankenv.stale(env),
        *(rankenv.slurm(env) if on_slurm else ()),
        *rankenv.network(env, topology.interface, on_slurm=on_slurm),
        rankenv.unless_set(env, "PYTHONUNBUFFERED", "1", "ranks' lines appear when printed"),
        Change("LAUNCH_JOB_ID", topology.job, "told to the script"),
        Change("LAUNCH_BACKEND", "nccl" if gpus.count else "gloo", f"{gpus.count} GPUs"),
        Change("LAUNCH_SCRATCH", str(scratch), "state of `launch once-per-node`"),
        *caches.changes(env, caches.local_disk(), home),
    ]
    if context.script.endswith(".sh"):
        why = "a torchrun in the script can not fail without our knowing"
        changes.append(Change("PATH", f"{runners.SHIMS}:{env.get('PATH', os.defpath)}", why))
    if gpus.count:
        why = "a failed collective ends its rank (HyperPod recipes)"
        changes.append(rankenv.unless_set(env, "TORCH_NCCL_ASYNC_ERROR_HANDLING", "1", why))
    if context.settings.number("hang-timeout"):
        why = "ranks show their stacks when the job hangs"
        changes.append(rankenv.unless_set(env, "PYTHONFAULTHANDLER", "1", why))
    done = context.settings.text("done-file")
    if done:
        changes.append(Change("LAUNCH_DONE_FILE", str(log_dir / done), "--done-file"))
    if context.platform == contexts.SAGEMAKER:
        why = "sagemaker-training's contract with scripts"
        values = smenv.variables(
            context.ml,
            topology,
            context.hyperparameters,
            gpus=gpus.count,
            script=context.script,
            args=context.args,
        )
        changes += [Change(name, value, why) for name, value in sorted(values.items())]
        path = env.get("PYTHONPATH", "")
        joined = f"{context.cwd}:{path}" if path else str(context.cwd)
        changes.append(Change("PYTHONPATH", joined, "the source directory is importable"))
    return changes


def assumed_layout(plan: Plan) -> Layout:
    """The ranks if every node has as many processes as this one."""
    topology = plan.context.topology
    return runners.layout(
        topology,
        [plan.nproc] * topology.nodes,
        port=plan.context.settings.number("port") if topology.nodes > 1 else 0,
        attempt=topology.attempt or 0,
        visible=devices.visible_ids(plan.context.env),
    )


def free_port() -> int:
    """A port for a job on one node, so that two jobs on one machine do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def commands(plan: Plan, ranks: Layout) -> list[runners.Command]:
    """The exact commands of this node."""
    context = plan.context
    return runners.commands(
        plan.runner,
        ranks,
        python=context.python,
        script=context.script,
        args=context.args,
        log_dir=plan.log_dir,
        max_restarts=context.settings.number("max-restarts"),
    )


def fresh_directory(path: Path) -> Path:
    """Create a directory; what an earlier run left there is moved aside, not mixed in."""
    if path.exists() and any(path.iterdir()):
        number = 1
        while path.with_name(f"{path.name}.{number}").exists():
            number += 1
        path.rename(path.with_name(f"{path.name}.{number}"))
    path.mkdir(parents=True, exist_ok=True)
    return path
