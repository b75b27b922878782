"""What the probes tell of a cluster, as values. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlaceFacts:
    """The disk that a path is on, at the nearest folder above it that is there. Sizes in bytes."""

    path: str
    existing: str
    writable: bool
    mount: str
    type: str
    total: int
    free: int
    inodes: int
    free_inodes: int


@dataclass(frozen=True)
class MachineFacts:
    """What a machine of the cluster says of itself; see node_probe.py."""

    time: float
    user: str
    uid: int
    kernel: str
    os: str
    hyperpod: bool
    product: str  # its type, where the machine tells it
    tools: tuple[str, ...]
    places: Mapping[str, PlaceFacts]
    disks: tuple[PlaceFacts, ...]
    fuse: bool
    user_namespaces: tuple[int | None, ...]
    memlock: int  # hard limits; -1 for none
    nofile: int
    interfaces: Mapping[str, int]
    efa: int
    verbs: int
    gpus: int
    driver: str
    plugstack: tuple[str, ...] | None
    # Of nodes only.
    home_shared: bool = True
    unresolved: tuple[str, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)  # sizes, -1 for one that is not there

    @property
    def pyxis_lines(self) -> tuple[str, ...]:
        """The lines of plugstack.conf that load pyxis."""
        return tuple(line for line in self.plugstack or () if "pyxis" in line)


@dataclass(frozen=True)
class SlurmNode:
    """What Slurm says of a node."""

    name: str
    states: tuple[str, ...]
    reason: str
    version: str
    gpus: int
    partitions: tuple[str, ...]

    @property
    def is_unusable(self) -> bool:
        """Whether Slurm starts nothing on it."""
        bad = ("DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "NOT_RESPONDING")
        return bool({*self.states} & {*bad, "UNKNOWN", "INVALID_REG", "POWERED_DOWN", "MAINT"})


@dataclass(frozen=True)
class SlurmPartition:
    """What Slurm says of a partition."""

    name: str
    state: str
    nodes: tuple[str, ...]
    is_default: bool


@dataclass(frozen=True)
class SlurmTopology:
    """The file that places nodes in the network. `names_all`: one of trees alone, where a node
    that it does not name is reached by no job of several."""

    file: str
    nodes: tuple[str, ...]
    names_all: bool


@dataclass(frozen=True)
class HeadFacts:
    """The head node, and what Slurm says there of the cluster."""

    machine: MachineFacts
    config: Mapping[str, str]
    nodes: tuple[SlurmNode, ...]
    partitions: tuple[SlurmPartition, ...]
    ping: str
    container_option: bool
    topology: SlurmTopology | None
    marked: bool  # whether the home directory may be written to


@dataclass(frozen=True)
class NodeAnswers:
    """What came of asking the nodes. `silent`: node -> why it said nothing; `busy` were not asked.

    `began` and `ended` are the head node's clock, before and after.
    """

    machines: Mapping[str, MachineFacts] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    busy: tuple[str, ...] = ()
    began: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True)
class InstanceNeeds:
    """What a type of machine has by the launcher's table; None where that is not known."""

    gpus: int
    efa: int | None


@dataclass(frozen=True)
class ClusterFacts:
    """All that the checks go by. `instances`: type -> what it has, of types in the table."""

    head: HeadFacts
    answers: NodeAnswers
    instances: Mapping[str, InstanceNeeds] = field(default_factory=dict)

    @property
    def machines(self) -> Mapping[str, MachineFacts]:
        """The nodes that have answered."""
        return self.answers.machines


def parse_machine(facts: Mapping[str, Any]) -> MachineFacts:
    """Of a probe's JSON. Raises KeyError, TypeError or ValueError for anything else."""
    lines = facts["plugstack"]
    return MachineFacts(
        time=float(facts["time"]),
        user=str(facts["user"]),
        uid=int(facts["uid"]),
        kernel=str(facts["kernel"]),
        os=str(facts["os"]),
        hyperpod=bool(facts["hyperpod"]),
        product=str(facts["product"]),
        tools=tuple(map(str, facts["tools"])),
        places={name: PlaceFacts(**place) for name, place in facts["places"].items()},
        disks=tuple(PlaceFacts(**disk) for disk in facts["disks"]),
        fuse=bool(facts["fuse"]),
        user_namespaces=tuple(facts["user_namespaces"]),
        memlock=int(facts["memlock"]),
        nofile=int(facts["nofile"]),
        interfaces={name: int(mtu) for name, mtu in facts["interfaces"].items()},
        efa=int(facts["efa"]),
        verbs=int(facts["verbs"]),
        gpus=int(facts["gpus"]),
        driver=str(facts["driver"]),
        plugstack=None if lines is None else tuple(map(str, lines)),
        home_shared=bool(facts.get("home_shared", True)),
        unresolved=tuple(map(str, facts.get("unresolved", ()))),
        files={path: int(size) for path, size in facts.get("files", {}).items()},
    )


def parse_head(facts: Mapping[str, Any]) -> HeadFacts:
    """Of the head node's JSON; raises as `parse_machine`."""
    lists = {text: tuple(names) for text, names in facts["lists"].items()}
    topology = facts["topology"]
    return HeadFacts(
        machine=parse_machine(facts),
        config=dict(facts["config"]),
        nodes=tuple(map(_parse_node, _rows(facts["nodes"], "NodeName="))),
        partitions=tuple(
            _parse_partition(line, lists) for line in _rows(facts["partitions"], "PartitionName=")
        ),
        ping=str(facts["ping"]).strip(),
        container_option=bool(facts["container_option"]),
        topology=_parse_topology(topology, lists) if topology else None,
        marked=bool(facts["marked"]),
    )


def _parse_topology(
    topology: Mapping[str, Any], lists: Mapping[str, tuple[str, ...]]
) -> SlurmTopology:
    nodes = tuple(name for text in topology["nodes"] for name in lists.get(text, (text,)))
    return SlurmTopology(str(topology["file"]), nodes, bool(topology["names_all"]))


def _rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def _value(line: str, key: str) -> str:
    match = re.search(rf"(?:^| ){key}=(\S*)", line)
    return "" if match is None or match[1] == "(null)" else match[1]


def _parse_node(line: str) -> SlurmNode:
    # An administrator's own words stand at the end, and may hold what looks like a field.
    line, _, reason = line.partition(" Reason=")
    reason = re.sub(r"(?: \[\S+@\S+\])?(?: (?:Comment|ResolvedAddr)=.*)?$", "", reason.strip())
    gpus = re.match(r"gpu(?::[A-Za-z][^:,()]*)?:(\d+)", _value(line, "Gres"))
    return SlurmNode(
        name=_value(line, "NodeName"),
        states=tuple(re.split(r"[+*~#!%$@^-]+", _value(line, "State").rstrip("*~#!%$@^-"))),
        reason=reason,
        version=_value(line, "Version"),
        gpus=int(gpus[1]) if gpus else 0,
        partitions=tuple(filter(None, _value(line, "Partitions").split(","))),
    )


def _parse_partition(line: str, lists: Mapping[str, tuple[str, ...]]) -> SlurmPartition:
    nodes = _value(line, "Nodes")
    return SlurmPartition(
        name=_value(line, "PartitionName"),
        state=_value(line, "State"),
        nodes=lists.get(nodes, ()),
        is_default=_value(line, "Default") == "YES",
    )
