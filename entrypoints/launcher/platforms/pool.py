"""The nodes of a job with spares (--spares): which of them train, and in whose place.

Of all nodes as many train as are no spares. Each beginning of the job (the first, and each after a
node was lost) is a launcher process of its own below the node's, which is told its place by a
variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.causes import LaunchUsageError
from launcher.platforms.topology import Topology

#: From the launcher of a node with spares to the one below it; never a rank's.
PLACE_VARIABLE = "LAUNCH_PLACE"


@dataclass(frozen=True)
class NodePool:
    """All nodes of a job with spares, in the platform's order, and which of them this is."""

    hosts: tuple[str, ...]
    node: int
    spares: int

    @property
    def host(self) -> str:
        """This node's name."""
        return self.hosts[self.node]

    @property
    def training(self) -> int:
        """How many nodes train at a time."""
        return len(self.hosts) - self.spares

    @property
    def waits(self) -> bool:
        """Whether this node waits when the job begins."""
        return self.node >= self.training


@dataclass(frozen=True)
class AttemptPlace:
    """As which node of which beginning a launcher runs, and where it writes how that ended.

    `meets_only`: all nodes, the spares among them, meet and check themselves, and train nothing.
    """

    hosts: tuple[str, ...]
    node: int
    restart: int
    verdict_file: int = -1
    meets_only: bool = False

    def to_variable(self) -> str:
        """The value of PLACE_VARIABLE."""
        return json.dumps(self.__dict__)

    def replace_in(self, topology: Topology) -> Topology:
        """The nodes of this beginning, instead of the platform's."""
        return replace(
            topology, hosts=self.hosts, node_rank=self.node, restart=max(0, self.restart)
        )


def read_place(env: Mapping[str, str]) -> AttemptPlace | None:
    """The place that the launcher above has given, if there is one."""
    text = env.get(PLACE_VARIABLE)
    if text is None:
        return None
    try:
        data = json.loads(text)
        return AttemptPlace(**{**data, "hosts": tuple(data["hosts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LaunchUsageError(f"{PLACE_VARIABLE} is not for a job to set: {error}") from error


def make_pool(topology: Topology, spares: int, source: str) -> NodePool | None:
    """The pool of `--spares`; None without spares. UsageError where too few nodes would train."""
    if spares == 0:
        return None
    if topology.nodes == 1:
        raise LaunchUsageError(f"{source} {spares}: this job has one node, which has to train")
    if spares >= topology.nodes:
        raise LaunchUsageError(
            f"{source} {spares}: of {topology.nodes} nodes none would be left to train"
        )
    return NodePool(topology.hosts, topology.node_rank, spares)


def first_topology(topology: Topology, pool: NodePool) -> Topology:
    """The nodes that train first; on one that waits, as if it had the last one's place."""
    hosts = pool.hosts[: pool.training]
    return replace(topology, hosts=hosts, node_rank=min(pool.node, pool.training - 1))


def muster_port(port: int, gate_port: int) -> int:
    """Where all nodes of a pool stay connected: beside the gate's port."""
    return gate_port - 1 if gate_port - 1 != port else gate_port + 1


def rendezvous_port(port: int, gate_port: int, restart: int) -> int:
    """A new one for each beginning, so that nobody of an earlier one is met; away from the gate."""
    return port + restart if gate_port < port else port - restart
