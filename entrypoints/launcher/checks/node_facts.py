"""What nodes compare when they meet: a job on unlike nodes fails here, not in a collective.

Everybody says one digest of all facts. Where digests differ, one node of each kind gives the
digests of its single facts, which name what differs, and the values of those alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import __version__
from launcher.causes import GATE, LaunchError
from launcher.peers import Peers, name_some
from launcher.plan import Plan
from launcher.platforms import Topology
from launcher.stop_request import StopRequest

#: What is shown of arguments that differ.
SHOWN_CHARS = 200
#: Of kinds of nodes, how many are looked at.
MOST_KINDS = 4
#: Of facts that differ, how many are named.
MOST_NAMED = 5
FEW_HOSTS = 3


def gather_facts(plan: Plan, versions: Mapping[str, str]) -> dict[str, Any]:
    """This node's side: what has to be the same on all nodes."""
    context = plan.context
    script = Path(context.cwd, context.script)
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16] if script.is_file() else "none"
    return {
        "hosts": list(context.topology.hosts),
        "launcher": __version__,
        "runner": plan.runner,
        "arguments": [context.script, *context.args],
        "script": digest,
        **{f"version of {name}": version for name, version in versions.items()},
    }


def digest_facts(facts: Any) -> str:
    """The same for the same facts."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def meet_nodes(
    peers: Peers,
    topology: Topology,
    facts: Mapping[str, Any],
    nproc: int,
    *,
    timeout: float,
    halt: StopRequest,
) -> list[int]:
    """Each node's number of ranks, once all have come; LaunchError 76 when they are unlike."""
    answers = peers.gather("start", [nproc, digest_facts(facts)], timeout=timeout, halt=halt)
    kinds: dict[str, list[int]] = {}
    for node, (_, digest) in enumerate(answers):
        kinds.setdefault(str(digest), []).append(node)
    if len(kinds) > 1:
        shown = list(kinds.values())[:MOST_KINDS]
        raise _nodes_differ(peers, topology, facts, shown, halt)
    return [int(count) for count, _ in answers]


def _nodes_differ(
    peers: Peers,
    topology: Topology,
    facts: Mapping[str, Any],
    kinds: Sequence[Sequence[int]],
    halt: StopRequest,
) -> LaunchError:
    """What differs, told by the first node of each kind; the others only listen."""
    speakers = [nodes[0] for nodes in kinds]
    speaks = topology.node_rank in speakers
    digests = {name: digest_facts(value) for name, value in facts.items()} if speaks else None
    told = peers.gather("digests of facts", digests, halt=halt)
    names = sorted({name for node in speakers for name in told[node]})
    differing = [name for name in names if len({told[n].get(name) for n in speakers}) > 1]
    differing.sort(key=lambda name: name.startswith("version of "))  # arguments and script first
    mine = {name: _short(facts.get(name)) for name in differing[:MOST_NAMED]} if speaks else None
    values = peers.gather("facts that differ", mine, halt=halt)
    texts = [_difference(name, topology, kinds, values) for name in differing[:MOST_NAMED]]
    more = len(differing) - len(texts)
    return LaunchError(
        f"the nodes differ in {'; in '.join(texts)}" + (f"; in {more} more" if more else ""),
        code=GATE,
        kind="NodesDiffer",
    )


def _difference(
    name: str,
    topology: Topology,
    kinds: Sequence[Sequence[int]],
    values: Sequence[Mapping[str, str]],
) -> str:
    """One fact: who has which value."""
    nodes_of: dict[str, list[int]] = {}
    for nodes in kinds:
        nodes_of.setdefault(values[nodes[0]][name], []).extend(nodes)
    parts = []
    for value, nodes in nodes_of.items():
        hosts = [topology.hosts[node] for node in sorted(nodes)]
        # Of the few that are different a person looks for all.
        rest = len(hosts) - 1
        who = f"{hosts[0]} and {rest} more" if rest >= FEW_HOSTS else name_some(hosts)
        parts.append(f"{who} {'has' if len(hosts) == 1 else 'have'} {value}")
    return f"{name}: {', '.join(parts)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
