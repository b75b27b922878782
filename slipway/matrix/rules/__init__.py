"""What must hold between the entries of versions.yaml, each checked by itself before.

In come entries; what is wrong is added to their problems, and the order of add-ons is what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.rules.addon_rules import (
        check_together,
        order_addons,
        take_requirement_files,
    )
    from slipway.matrix.rules.consistency import (
        check_consistency,
        facts_of,
        flavours_of,
        regions_without,
        tags_of,
        waits,
    )
    from slipway.matrix.rules.system_rules import check_system

__all__ = [
    "check_consistency",
    "check_system",
    "check_together",
    "facts_of",
    "flavours_of",
    "order_addons",
    "regions_without",
    "tags_of",
    "take_requirement_files",
    "waits",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addon_rules": "check_together order_addons take_requirement_files",
        "consistency": ("check_consistency facts_of flavours_of regions_without tags_of waits"),
        "system_rules": "check_system",
    },
)
