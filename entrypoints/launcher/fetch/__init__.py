"""A .sqsh on every node of a job: only the pieces that a node lacks move, and nodes share them.

It runs before any container does, with a node's own Python: the launcher's folder, or the one zip
that Slipway makes of this room and the rooms below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.fetch.fetch_command import run_fetch

__all__ = ["run_fetch"]

__getattr__ = lazy_face(__name__, {"fetch_command": "run_fetch"})
