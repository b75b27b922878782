"""Add-ons: how they are written, which of them an image has, and what happens to each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.addons.addon_entries import AddonEntry, ReplaceEntry, ToolEntry
    from slipway.matrix.addons.decisions import (
        AxisChoice,
        decide_addon,
        inherit_addon,
        is_for,
        read_tool,
    )
    from slipway.matrix.addons.requirement_files import RequirementError, read_requirements
    from slipway.matrix.addons.system_entries import (
        ArchiveEntry,
        archives_of,
        read_archive,
    )

__all__ = [
    "AddonEntry",
    "ArchiveEntry",
    "AxisChoice",
    "ReplaceEntry",
    "RequirementError",
    "ToolEntry",
    "archives_of",
    "decide_addon",
    "inherit_addon",
    "is_for",
    "read_archive",
    "read_requirements",
    "read_tool",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addon_entries": "AddonEntry ReplaceEntry ToolEntry",
        "decisions": "AxisChoice decide_addon inherit_addon is_for read_tool",
        "requirement_files": "RequirementError read_requirements",
        "system_entries": "ArchiveEntry archives_of read_archive",
    },
)
