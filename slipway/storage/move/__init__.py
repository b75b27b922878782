"""A move: the plan, its journal, the transaction, going on after a cut, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.move.changes import DataRoot
    from slipway.storage.move.journal import DockerDaemon, KeptFolder, MoveJournal
    from slipway.storage.move.move_plan import PlannedMove

__all__ = [
    "DataRoot",
    "DockerDaemon",
    "KeptFolder",
    "MoveJournal",
    "PlannedMove",
]

__getattr__ = lazy_face(
    __name__,
    {
        "move_plan": "PlannedMove",
        "changes": "DataRoot",
        "journal": "DockerDaemon KeptFolder MoveJournal",
    },
)
