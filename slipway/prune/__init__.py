"""What can go: unused images, build cache, old .sqsh files and caches; asks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.prune.removals import prune

__all__ = ["prune"]

__getattr__ = lazy_face(
    __name__,
    {
        "removals": "prune",
    },
)
