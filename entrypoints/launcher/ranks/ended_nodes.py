"""Which nodes' ranks have all ended.

Node 0's torchrun serves the other nodes' rendezvous: a stop may end it before its time only when
nobody is left who needs it.
"""

from __future__ import annotations

import threading
from typing import Any

from launcher.peers import Peers

TOPIC = "ranks-ended"


class EndedNodes:
    """One node's view; node 0 alone hears of the others."""

    def __init__(self, peers: Peers, node_rank: int, nodes: int) -> None:
        self._peers = peers
        self._node_rank = node_rank
        self._nodes = nodes
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self._told = False
        peers.topics[TOPIC] = self._hear

    def _hear(self, node: Any) -> None:
        """Called in the gate's thread; what another node says is a number of a node, or nothing."""
        if isinstance(node, int) and 0 <= node < self._nodes:
            with self._lock:
                self._ended.add(node)

    def tell(self) -> None:
        """The ranks of this node have ended."""
        if not self._told:
            self._told = True
            self._peers.announce(TOPIC, self._node_rank, node=0)

    def others_ended(self) -> bool:
        """Tell it, and whether no other node needs this one's runner any more."""
        self.tell()
        with self._lock:
            others = self._ended - {self._node_rank}
        return self._node_rank != 0 or len(others) == self._nodes - 1
