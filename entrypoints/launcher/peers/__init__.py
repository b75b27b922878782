"""Where launchers meet: the gate of a job on several nodes, and its null form for one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.peers.gate import Gate
    from launcher.peers.peers import COLLECTING, LonePeers, PeerError

__all__ = ["COLLECTING", "Gate", "LonePeers", "PeerError"]

__getattr__ = lazy_face(
    __name__,
    {
        "gate": "Gate",
        "peers": "COLLECTING LonePeers PeerError",
    },
)
