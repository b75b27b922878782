"""When a stop may end the runner that serves the other nodes' rendezvous."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.peers import LonePeers
from launcher.ranks import EndedNodes


class Recorded(LonePeers):
    """Peers that keep what is told to node 0."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, Any, int | None]] = []

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        self.told.append((topic, data, node))


@pytest.mark.parametrize(
    ("heard", "ended"),
    [([], False), ([1], False), ([0, 1], False), ([1, 2], True), ([2, 1, 1, 0], True),
     ([1, -1], False), ([1, 3], False), ([1, "2"], False), ([1, None, {"node": 2}], False)],
)  # fmt: skip
def test_node_0_waits_for_all_others(heard: list[Any], ended: bool) -> None:
    peers = Recorded()
    nodes = EndedNodes(peers, 0, 3)
    for node in heard:
        peers.topics["ranks-ended"](node)
    assert nodes.others_ended() == ended


def test_another_node_waits_for_nobody_and_tells_once() -> None:
    peers = Recorded()
    nodes = EndedNodes(peers, 2, 3)
    assert nodes.others_ended()
    nodes.tell()
    assert peers.told == [("ranks-ended", 2, 0)]


def test_alone_there_is_nobody_to_wait_for() -> None:
    assert EndedNodes(LonePeers(), 0, 1).others_ended()
