"""Docker's, containerd's and enroot's data: where they are, and moving them.

A move is a journal of steps, each of which can be undone; what is not understood is refused before
anything is stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.errors import CopyError, StorageError
    from slipway.storage.machine import Machine
    from slipway.storage.move.data_move import (
        delete_kept,
        move_data,
        require_root,
        restore_data,
        resume_move,
    )
    from slipway.storage.move.journal import DockerDaemon
    from slipway.storage.move.move_plan import MoveOptions, plan_move
    from slipway.storage.storage_report import (
        ask_user,
        disk_named,
        mode_named,
        show_deleted,
        show_move_progress,
        show_outcome,
        show_planned,
        show_status,
    )
    from slipway.storage.storage_status import StorageStatus, inspect_storage

__all__ = [
    "CopyError",
    "DockerDaemon",
    "Machine",
    "MoveOptions",
    "StorageError",
    "StorageStatus",
    "ask_user",
    "delete_kept",
    "disk_named",
    "inspect_storage",
    "mode_named",
    "move_data",
    "plan_move",
    "require_root",
    "restore_data",
    "resume_move",
    "show_deleted",
    "show_move_progress",
    "show_outcome",
    "show_planned",
    "show_status",
]

__getattr__ = lazy_face(
    __name__,
    {
        "errors": "CopyError StorageError",
        "machine": "Machine",
        "move.data_move": "delete_kept move_data require_root restore_data resume_move",
        "move.journal": "DockerDaemon",
        "move.move_plan": "MoveOptions plan_move",
        "storage_report": (
            "ask_user disk_named mode_named show_deleted show_move_progress show_outcome "
            "show_planned show_status"
        ),
        "storage_status": "StorageStatus inspect_storage",
    },
)
