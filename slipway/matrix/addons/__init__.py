"""Add-ons: how they are written, which of them an image has, and what happens to each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.addons.addon_entries import AddonEntry, ReplaceEntry, ToolEntry
    from slipway.matrix.addons.addon_rules import (
        check_addons,
        check_together,
        order_addons,
        take_requirement_files,
    )
    from slipway.matrix.addons.decisions import AxisChoice, decide_addon, is_for, read_tool
    from slipway.matrix.addons.system_entries import (
        ArchiveEntry,
        archives_of,
        check_archives,
        check_system,
        read_archive,
    )

__all__ = [
    "AddonEntry",
    "ArchiveEntry",
    "AxisChoice",
    "ReplaceEntry",
    "ToolEntry",
    "archives_of",
    "check_addons",
    "check_archives",
    "check_system",
    "check_together",
    "decide_addon",
    "is_for",
    "order_addons",
    "read_archive",
    "read_tool",
    "take_requirement_files",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addon_entries": "AddonEntry ReplaceEntry ToolEntry",
        "addon_rules": "check_addons check_together order_addons take_requirement_files",
        "decisions": "AxisChoice decide_addon is_for read_tool",
        "system_entries": "ArchiveEntry archives_of check_archives check_system read_archive",
    },
)
