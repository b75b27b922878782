"""What can go: unused images, build cache, old .sqsh files and caches; asks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.prune.removable import RemovalStep
    from slipway.prune.removals import image_age, plan_removals, prune

__all__ = ["RemovalStep", "image_age", "plan_removals", "prune"]

__getattr__ = lazy_face(
    __name__,
    {
        "removable": "RemovalStep",
        "removals": "image_age plan_removals prune",
    },
)
