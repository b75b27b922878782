"""The invoke namespaces: parse, call a room, print. No logic of images stands here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.tasks.commands import (
        BUILD,
        IMAGE_NAMES,
        JOB_SOURCE,
        JSON,
        NAMES,
        NO_ENGINE,
        REGION,
        ROOT,
        SOCI,
        SQSH,
        TARGET,
        task_command,
    )
    from slipway.tasks.matrix import explain_name
    from slipway.tasks.reference_pages import settings_page, versions_page
    from slipway.tasks.task_page import task_page

__all__ = [
    "BUILD",
    "IMAGE_NAMES",
    "JOB_SOURCE",
    "JSON",
    "NAMES",
    "NO_ENGINE",
    "REGION",
    "ROOT",
    "SOCI",
    "SQSH",
    "TARGET",
    "explain_name",
    "settings_page",
    "task_command",
    "task_page",
    "versions_page",
]

__getattr__ = lazy_face(
    __name__,
    {
        "commands": (
            "BUILD IMAGE_NAMES JOB_SOURCE JSON NAMES NO_ENGINE REGION ROOT SOCI SQSH TARGET "
            "task_command"
        ),
        "matrix": "explain_name",
        "reference_pages": "settings_page versions_page",
        "task_page": "task_page",
    },
)
