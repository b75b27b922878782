"""One thing that is wrong with a cluster, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slipway.cluster.check.cluster_facts import ClusterFacts, MachineFacts

MOST_NODES = 6
"""Of nodes with one fault, how many a person sees named."""


@dataclass(frozen=True)
class ClusterFault:
    """A finding. `wrong` breaks jobs; `note` is worth knowing. No nodes: it is of the cluster."""

    state: Literal["wrong", "note"]
    kind: str
    nodes: tuple[str, ...]
    text: str
    cure: str

    @property
    def place(self) -> str:
        """The nodes for a person."""
        return some_nodes(self.nodes) if self.nodes else "cluster"

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


Faults = Iterator[ClusterFault]


@dataclass(frozen=True)
class ClusterCheck:
    """A check of facts. `question` is what it answers, for the documents."""

    kind: str
    question: str
    find: Callable[[ClusterFacts], Iterable[ClusterFault]]


def some_nodes(nodes: Iterable[str]) -> str:
    """``n1, n2 and 3 more``."""
    names = list(nodes)
    more = f" and {len(names) - MOST_NODES} more" if len(names) > MOST_NODES else ""
    return ", ".join(names[:MOST_NODES]) + more


def group_nodes(
    machines: Mapping[str, MachineFacts], describe: Callable[[MachineFacts], str | None]
) -> dict[str, tuple[str, ...]]:
    """What is said of a node -> the nodes of which that is said; None is nothing."""
    groups: dict[str, list[str]] = {}
    for name, machine in machines.items():
        text = describe(machine)
        if text is not None:
            groups.setdefault(text, []).append(name)
    return {text: tuple(nodes) for text, nodes in groups.items()}


def differing_nodes(
    machines: Mapping[str, MachineFacts], describe: Callable[[MachineFacts], str]
) -> tuple[str, tuple[str, ...]] | None:
    """Where nodes differ: who has what, and the nodes that are not of the largest group."""
    groups = group_nodes(machines, describe)
    if len(groups) < 2:
        return None
    most = max(groups, key=lambda text: len(groups[text]))
    texts = [f"{some_nodes(nodes)}: {text}" for text, nodes in groups.items()]
    odd = tuple(node for text, nodes in groups.items() if text != most for node in nodes)
    return "; ".join(texts), odd


def each_node(
    facts: ClusterFacts,
    state: Literal["wrong", "note"],
    kind: str,
    describe: Callable[[MachineFacts], str | None],
    cure: str,
) -> Faults:
    """A finding for each thing that is said of nodes."""
    for text, nodes in group_nodes(facts.machines, describe).items():
        yield ClusterFault(state, kind, nodes, text, cure)


def unlike_nodes(
    facts: ClusterFacts,
    state: Literal["wrong", "note"],
    kind: str,
    describe: Callable[[MachineFacts], str],
    cure: str,
) -> Faults:
    """A finding where nodes differ."""
    if differ := differing_nodes(facts.machines, describe):
        text, odd = differ
        yield ClusterFault(state, kind, odd, text, cure)
