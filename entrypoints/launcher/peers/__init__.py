"""Where launchers meet: the gate of a job on several nodes, and its null form for one node.

`Peers` is what the rest of the launcher knows; `Gate` and `LonePeers` are its two forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.peers.addresses import PeerRoute, listen_everywhere, master_name
    from launcher.peers.gate import Gate, GatePlace, admit_caller, prove_membership
    from launcher.peers.gate_server import GateServer
    from launcher.peers.gate_state import GateState, name_some
    from launcher.peers.peers import COLLECTING, LonePeers, PeerError, Peers
    from launcher.peers.roster import (
        HALT,
        LEAVE,
        ORDER,
        OVER,
        REPORT,
        TELL,
        TRAIN,
        NodeReport,
        Roster,
        RosterPolicy,
        RosterState,
        roster_from_wire,
    )
    from launcher.peers.secret import (
        SECRET_VARIABLE,
        JobKey,
        derive_job_key,
        derive_part_key,
        secret_warnings,
    )

__all__ = [
    "COLLECTING",
    "HALT",
    "LEAVE",
    "ORDER",
    "OVER",
    "REPORT",
    "SECRET_VARIABLE",
    "TELL",
    "TRAIN",
    "Gate",
    "GatePlace",
    "GateServer",
    "GateState",
    "JobKey",
    "LonePeers",
    "NodeReport",
    "PeerError",
    "PeerRoute",
    "Peers",
    "Roster",
    "RosterPolicy",
    "RosterState",
    "admit_caller",
    "derive_job_key",
    "derive_part_key",
    "listen_everywhere",
    "master_name",
    "name_some",
    "prove_membership",
    "roster_from_wire",
    "secret_warnings",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addresses": "PeerRoute listen_everywhere master_name",
        "gate": "Gate GatePlace admit_caller prove_membership",
        "gate_server": "GateServer",
        "gate_state": "GateState name_some",
        "peers": "COLLECTING LonePeers PeerError Peers",
        "roster": (
            "HALT LEAVE NodeReport ORDER OVER REPORT Roster RosterPolicy RosterState TELL TRAIN "
            "roster_from_wire"
        ),
        "secret": "JobKey SECRET_VARIABLE derive_job_key derive_part_key secret_warnings",
    },
)
