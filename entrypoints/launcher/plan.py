"""What a launch would do on this node, computed without side effects."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import context as contexts
from launcher.context import SAGEMAKER, Context
from launcher.data import TransferPlan, find_source, plan_transfers
from launcher.options import unknown_variables
from launcher.peers import SECRET_VARIABLE, JobKey, derive_job_key, secret_warnings
from launcher.platforms import (
    PLACE_VARIABLE,
    EnvironmentChange,
    Gpus,
    LocalDisk,
    choose_disk,
    count_gpus,
    make_place,
    muster_port,
    network_changes,
    network_variables,
    network_warnings,
    path_word,
    read_network_stack,
    rendezvous_port,
    sagemaker_variables,
    script_hyperparameters,
    slurm_changes,
    stale_variables,
    to_arguments,
    unless_set,
    visible_ids,
)
from launcher.ranks import (
    CACHES,
    SHIMS,
    RankCommand,
    RankLayout,
    RankProgram,
    build_rank_commands,
    cache_variables,
    choose_runner,
    default_nproc,
    is_node_command,
    layout_ranks,
)


@dataclass(frozen=True)
class Plan:
    """The decisions that need no other node: runner, ranks here, environment.

    `log_dir` may be on a shared file system; `scratch` is on `disk`, this node's own.
    """

    context: Context
    runner: str
    gpus: Gpus
    nproc: int
    log_dir: Path
    scratch: Path
    disk: LocalDisk
    changes: tuple[EnvironmentChange, ...]
    warnings: tuple[str, ...]
    data: TransferPlan
    job_key: JobKey

    @property
    def done_file(self) -> Path | None:
        """What each rank's done-file begins with."""
        name = self.context.settings.text("done-file")
        return self.log_dir / name if name else None


def plan_launch(context: Context) -> Plan:
    """Decide; UsageError if there is no script to decide about."""
    expected = find_source(context.env, context.hyperparameters, context.ml.code)
    contexts.need_script(context, to_come=bool(expected) and context.platform == SAGEMAKER)
    settings = context.settings
    script = "" if context.module else context.script  # a module is Python
    runner = choose_runner(settings.text("runner"), script, context.cwd)
    gpus = count_gpus(context.env)
    asked = settings.text("nproc")
    nproc = default_nproc(runner, gpus.count) if asked == "auto" else int(asked)
    again = f".{context.topology.restart}" if context.topology.restart else ""
    own = Path(
        path_word(f"{context.topology.job}-{context.topology.attempt or 0}{again}"),
        f"node{context.topology.node_rank}",
    )
    disk = choose_disk(context.env, settings.text("local-dir"))
    scratch = disk.own / own
    log_dir = (
        Path(settings.text("log-dir")).absolute() / own if settings.text("log-dir") else scratch
    )
    stack = read_network_stack()
    profile = settings.text("env-profile") == "auto"
    kind, nodes = instance_type(context), context.topology.nodes
    table = network_variables(context.env, kind, stack, nodes) if profile else []
    warnings = network_warnings(context.env, kind, stack, nodes) if profile else []
    warnings += _unpassed_hyperparameters(context)
    warnings += unknown_variables(context.env)
    warnings += [disk.warning] if disk.warning else []
    topology = context.topology
    return Plan(
        context=context,
        runner=runner,
        gpus=gpus,
        nproc=nproc,
        log_dir=log_dir,
        scratch=scratch,
        disk=disk,
        changes=(*_changes(context, gpus, log_dir, scratch, disk), *table),
        warnings=tuple(warnings),
        data=plan_transfers(settings, context.args, context.ml.model),
        job_key=derive_job_key(
            context.env,
            context.platform,
            topology.job,
            topology.attempt,
            context.hyperparameters,
        ),
    )


def _unpassed_hyperparameters(context: Context) -> list[str]:
    """A warning where the command line's arguments stand in for the hyperparameters."""
    values = script_hyperparameters(context.hyperparameters)
    if context.platform != SAGEMAKER or not values or list(context.args) == to_arguments(values):
        return []
    return [
        f"the script is given its arguments after --, not the hyperparameters "
        f"({', '.join(sorted(values))}), which it finds in SM_HPS; name the script alone to have "
        "them passed"
    ]


def instance_type(context: Context) -> str:
    """As the platform or the user tells it."""
    return context.topology.instance_type or context.settings.text("instance-type")


def _changes(
    context: Context, gpus: Gpus, log_dir: Path, scratch: Path, disk: LocalDisk
) -> list[EnvironmentChange]:
    env, topology = context.env, context.topology
    on_slurm = topology.platform == contexts.SLURM
    changes = [
        *stale_variables(env),
        *(slurm_changes(env) if on_slurm else ()),
        *network_changes(env, topology.interface, on_slurm=on_slurm),
        unless_set(env, "PYTHONUNBUFFERED", "1", "ranks' lines appear when printed"),
        EnvironmentChange("LAUNCH_JOB_ID", topology.job, "told to the script"),
        EnvironmentChange("LAUNCH_BACKEND", "nccl" if gpus.count else "gloo", f"{gpus.count} GPUs"),
        EnvironmentChange("LAUNCH_SCRATCH", str(scratch), "state of `launch once-per-node`"),
        *cache_variables(env, disk, context.python),
    ]
    if PLACE_VARIABLE in env:
        changes.append(EnvironmentChange(PLACE_VARIABLE, None, "for the launchers alone"))
    if SECRET_VARIABLE in env:
        changes.append(EnvironmentChange(SECRET_VARIABLE, None, "for the launchers alone"))
    why = "a torchrun that the script starts can not fail without our knowing"
    if env.get("SLIPWAY_PATH"):
        why += "; what PATH lacked of the image's own (SLIPWAY_PATH) was added"
    changes.append(EnvironmentChange("PATH", f"{SHIMS}:{env.get('PATH', os.defpath)}", why))
    if gpus.count:
        why = "a failed collective ends its rank (HyperPod recipes)"
        changes.append(unless_set(env, "TORCH_NCCL_ASYNC_ERROR_HANDLING", "1", why))
        why = "a report of a hang tells which GPU has not begun with a collective"
        changes.append(unless_set(env, "TORCH_NCCL_ENABLE_TIMING", "1", why))
    why = "a rank that a signal ends shows where it was (SIGSEGV, SIGBUS, SIGFPE, SIGABRT)"
    changes.append(unless_set(env, "PYTHONFAULTHANDLER", "1", why))
    done = context.settings.text("done-file")
    if done:
        changes.append(EnvironmentChange("LAUNCH_DONE_FILE", str(log_dir / done), "--done-file"))
    if context.platform == contexts.SAGEMAKER:
        why = "sagemaker-training's contract with scripts"
        values = sagemaker_variables(
            context.ml,
            context.hyperparameters,
            env,
            gpus=gpus.count,
            script=context.script,
            args=context.args,
        )
        changes += [EnvironmentChange(name, value, why) for name, value in sorted(values.items())]
        path = env.get("PYTHONPATH", "")
        joined = f"{context.cwd}:{path}" if path else str(context.cwd)
        changes.append(
            EnvironmentChange("PYTHONPATH", joined, "the source directory is importable")
        )
    return changes


def assumed_layout(plan: Plan) -> RankLayout:
    """The ranks if every node has as many processes as this one."""
    topology = plan.context.topology
    return layout_ranks(
        topology,
        [plan.nproc] * topology.nodes,
        port=meeting_port(plan.context) if topology.nodes > 1 else 0,
        attempt=topology.attempt or 0,
        visible=visible_ids(plan.context.env),
    )


def meeting_port(context: Context) -> int:
    """Where the ranks of several nodes meet."""
    number = context.settings.number
    return rendezvous_port(number("port"), number("gate-port"), context.topology.restart)


def free_port() -> int:
    """A port for a job on one node, so that two jobs on one machine do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def planned_commands(plan: Plan, ranks: RankLayout) -> list[RankCommand]:
    """The exact commands of this node."""
    context = plan.context
    return build_rank_commands(
        plan.runner,
        ranks,
        RankProgram(
            context.script,
            context.args,
            context.module,
            is_node_command(context.script, context.cwd),
        ),
        python=context.python,
        log_dir=plan.log_dir,
        max_restarts=context.settings.number("max-restarts"),
    )


def make_scratch(plan: Plan) -> None:
    """The folders of this launch: on the node's disk they are this user's alone."""
    for path in {plan.log_dir, plan.scratch}:
        fresh_directory(plan, path)
    plan.disk.make(CACHES)


def remove_scratch(plan: Plan) -> None:
    """What is of no use after the job: a disk outlives it, and logs are kept where they are."""
    if plan.scratch != plan.log_dir:
        shutil.rmtree(plan.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # another node's, on this machine
            plan.scratch.parent.rmdir()


def fresh_directory(plan: Plan, path: Path) -> Path:
    """Create a directory; what an earlier run left there is moved aside, not mixed in."""
    own = plan.disk.own
    private = len(path.relative_to(own).parts) + 1 if own in path.parents else 0
    make_place(path.parent, private=max(private - 1, 0))
    if path.exists() and any(path.iterdir()):
        number = 1
        while path.with_name(f"{path.name}.{number}").exists():
            number += 1
        path.rename(path.with_name(f"{path.name}.{number}"))
    return make_place(path, private=private)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The whole plan as JSON values."""
    context, ranks = plan.context, assumed_layout(plan)
    return {
        "platform": context.platform,
        "topology": topology_json(context),
        "gpus": {"count": plan.gpus.count, "source": plan.gpus.source},
        "runner": plan.runner,
        "nproc": plan.nproc,
        "world_size": ranks.world,
        "cwd": str(context.cwd),
        "disk": {"path": str(plan.disk.path), "why": plan.disk.why},
        "commands": [
            {"argv": list(command.argv), "env": dict(command.env)}
            for command in planned_commands(plan, ranks)
        ],
        "environment": [
            {"name": c.name, "value": c.value, "why": c.why, "kept": c.kept} for c in plan.changes
        ],
        "spares": list(context.pool.hosts[context.pool.training :]) if context.pool else [],
        "gate": {"known_by": plan.job_key.source, "secret": plan.job_key.private},
        "warnings": [*plan.warnings, *_gate_warnings(plan)],
        "options": {
            name: {"value": value.text, "source": value.source}
            for name, value in context.settings.values.items()
        },
    }


def topology_json(context: Context) -> dict[str, Any]:
    """`launch topology`: the nodes as JSON values."""
    topology = context.topology
    return {
        "platform": topology.platform,
        "job": topology.job,
        "attempt": topology.attempt,
        "hosts": list(topology.hosts),
        "host": topology.host,
        "node_rank": topology.node_rank,
        "master": topology.master,
        "instance_type": topology.instance_type,
        "interface": topology.interface,
        "alone": topology.alone,
    }


def plan_text(plan: Plan) -> str:
    """The plan for people. A port of 0 stands for a free one, chosen at the start."""
    data, topology = plan_json(plan), plan.context.topology
    lines = [
        f"platform   {data['platform']}",
        f"nodes      {topology.nodes}: {' '.join(topology.hosts)}",
        f"this node  {(plan.context.pool or topology).host} (node rank {topology.node_rank})",
        f"ranks      {plan.nproc} here, {data['world_size']} in all "
        f"({plan.gpus.count} GPUs, {plan.gpus.source})",
        f"runner     {plan.runner}, in {plan.context.cwd}, logs in {plan.log_dir}",
        f"disk       {plan.disk.path}: {plan.disk.why}",
    ]
    lines += _pool_lines(plan.context)
    if topology.nodes > 1:
        port = plan.context.settings.number("gate-port")
        lines.append(
            f"gate       port {port} of {topology.master}; nodes know each other by "
            f"{plan.job_key.source}"
        )
        lines.append(
            "network    NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME and MASTER_ADDR follow from the "
            "interface by which the nodes meet"
        )
    lines += [_command_text(command) for command in data["commands"]]
    lines.append("options    (those not at their default)")
    lines += [
        f"  {name} = {item['value']}  [{item['source']}]"
        for name, item in data["options"].items()
        if item["source"] != "default"
    ]
    lines += [f"warning    {text}" for text in data["warnings"]]
    lines.append("environment")
    for change in plan.changes:
        verb = "unset" if change.value is None else "keep" if change.kept else "set"
        value = "" if change.value is None else f"={json.dumps(change.value)}"
        lines.append(f"  {verb:5} {change.name}{value}  # {change.why}")
    return "\n".join(lines)


def _pool_lines(context: Context) -> list[str]:
    """What --spares means here, for people."""
    pool, settings = context.pool, context.settings
    if pool is None:
        return []
    waiting = " ".join(pool.hosts[pool.training :])
    port = muster_port(settings.number("port"), settings.number("gate-port"))
    lines = [
        f"spares     {pool.spares}: {waiting}; one takes the place of a node that is lost or hangs,"
        f" and all begin again. Nodes stay connected on port {port} of {pool.hosts[0]}"
    ]
    if pool.waits:
        lines.append(f"           {pool.host} waits; below is what it does in the last one's place")
    return lines


def _gate_warnings(plan: Plan) -> list[str]:
    context = plan.context
    if context.topology.nodes == 1:
        return []
    port = context.settings.number("gate-port")
    return secret_warnings(plan.job_key, context.env, port)


def _command_text(command: Mapping[str, Any]) -> str:
    env = " ".join(f"{name}={value}" for name, value in command["env"].items())
    return f"command    {env} {shlex.join(command['argv'])}"
