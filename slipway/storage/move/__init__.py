"""A move: the plan, its journal, the transaction, going on after a cut, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.move.docker_move import DockerDaemon
    from slipway.storage.move.journal import KeptFolder, MoveJournal, move_at_work
    from slipway.storage.move.move_plan import PlannedMove
    from slipway.storage.move.steps import move_steps, move_summary

__all__ = [
    "DockerDaemon",
    "KeptFolder",
    "MoveJournal",
    "PlannedMove",
    "move_at_work",
    "move_steps",
    "move_summary",
]

__getattr__ = lazy_face(
    __name__,
    {
        "move_plan": "PlannedMove",
        "docker_move": "DockerDaemon",
        "journal": "KeptFolder MoveJournal move_at_work",
        "steps": "move_steps move_summary",
    },
)
