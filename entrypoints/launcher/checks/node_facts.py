"""What nodes compare when they meet: a job on unlike nodes fails here, not in a collective."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import __version__
from launcher.causes import GATE, LaunchError
from launcher.plan import Plan

#: What is shown of arguments that differ.
SHOWN_CHARS = 200


def gather_facts(plan: Plan, versions: Mapping[str, str]) -> dict[str, Any]:
    """This node's side."""
    context = plan.context
    script = Path(context.cwd, context.script)
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16] if script.is_file() else "none"
    return {
        "hosts": list(context.topology.hosts),
        "launcher": __version__,
        "runner": plan.runner,
        "arguments": [context.script, *context.args],
        "script": digest,
        "nproc": plan.nproc,
        **{f"version of {name}": version for name, version in versions.items()},
    }


def check_nodes_alike(hosts: Sequence[str], said: Sequence[Mapping[str, Any]]) -> None:
    """LaunchError 76 naming what differs between two nodes, and on which."""
    first = said[0]
    for host, other in zip(hosts, said):
        for name in sorted({*first, *other} - {"nproc"}):
            if first.get(name) != other.get(name):
                raise LaunchError(
                    f"the nodes differ in {name}: {hosts[0]} has {_short(first.get(name))}, "
                    f"{host} has {_short(other.get(name))}",
                    code=GATE,
                    kind="NodesDiffer",
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
