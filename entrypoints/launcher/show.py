"""A plan for people and for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from launcher.context import Context
from launcher.plan import Plan, assumed_layout, commands


def as_json(plan: Plan) -> dict[str, Any]:
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
        "commands": [
            {"argv": list(command.argv), "env": dict(command.env)}
            for command in commands(plan, ranks)
        ],
        "environment": [
            {"name": c.name, "value": c.value, "why": c.why, "kept": c.kept} for c in plan.changes
        ],
        "warnings": list(plan.warnings),
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


def as_text(plan: Plan) -> str:
    """The plan for people. A port of 0 stands for a free one, chosen at the start."""
    data, topology = as_json(plan), plan.context.topology
    lines = [
        f"platform   {data['platform']}",
        f"nodes      {topology.nodes}: {' '.join(topology.hosts)}",
        f"this node  {topology.host} (node rank {topology.node_rank})",
        f"ranks      {plan.nproc} here, {data['world_size']} in all "
        f"({plan.gpus.count} GPUs, {plan.gpus.source})",
        f"runner     {plan.runner}, in {plan.context.cwd}, logs in {plan.log_dir}",
    ]
    lines += [_command_text(command) for command in data["commands"]]
    lines.append("options    (those not at their default)")
    lines += [
        f"  {name} = {item['value']}  [{item['source']}]"
        for name, item in data["options"].items()
        if item["source"] != "default"
    ]
    lines += [f"warning    {text}" for text in plan.warnings]
    lines.append("environment")
    for change in plan.changes:
        verb = "unset" if change.value is None else "keep" if change.kept else "set"
        value = "" if change.value is None else f"={json.dumps(change.value)}"
        lines.append(f"  {verb:5} {change.name}{value}  # {change.why}")
    return "\n".join(lines)


def _command_text(command: Mapping[str, Any]) -> str:
    env = " ".join(f"{name}={value}" for name, value in command["env"].items())
    return f"command    {env} {shlex.join(command['argv'])}"
