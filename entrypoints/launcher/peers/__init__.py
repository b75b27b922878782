"""Where launchers meet: the gate of a job on several nodes, and its null form for one node.

`Peers` is what the rest of the launcher knows; `Gate` and `LonePeers` are its two forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.peers.addresses import PeerRoute, master_name
    from launcher.peers.gate import Gate, GatePlace
    from launcher.peers.gate_server import GateServer
    from launcher.peers.gate_state import name_some
    from launcher.peers.peers import COLLECTING, LonePeers, PeerError, Peers
    from launcher.peers.secret import SECRET_VARIABLE, JobKey, derive_job_key, secret_warnings

__all__ = [
    "COLLECTING",
    "SECRET_VARIABLE",
    "Gate",
    "GatePlace",
    "GateServer",
    "JobKey",
    "LonePeers",
    "PeerError",
    "PeerRoute",
    "Peers",
    "derive_job_key",
    "master_name",
    "name_some",
    "secret_warnings",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addresses": "PeerRoute master_name",
        "gate": "Gate GatePlace",
        "gate_server": "GateServer",
        "gate_state": "name_some",
        "peers": "COLLECTING LonePeers PeerError Peers",
        "secret": "JobKey SECRET_VARIABLE derive_job_key secret_warnings",
    },
)
