"""`inv lock`: ask registries and the package index, and write what was found to images/lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.resolve.lock_update import update_locks

__all__ = ["update_locks"]

__getattr__ = lazy_face(
    __name__,
    {
        "lock_update": "update_locks",
    },
)
