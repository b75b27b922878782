"""Wheels and tools by their locked hashes: fetched, built, laid out for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.wheels.archives import archive_url, archive_variable, host_acquire_settings
    from slipway.wheels.base_packages import read_packages
    from slipway.wheels.image_context import ContextRequest, make_image_context
    from slipway.wheels.named_indexes import index_url
    from slipway.wheels.system_files import fetch_packages
    from slipway.wheels.tool_wheels import ARCHITECTURES, TOOL_PYTHON, tool_binary
    from slipway.wheels.wheelhouse import NotOfferedError, fetch_wheels, no_cpu_torch

__all__ = [
    "ARCHITECTURES",
    "TOOL_PYTHON",
    "ContextRequest",
    "NotOfferedError",
    "archive_url",
    "archive_variable",
    "fetch_packages",
    "fetch_wheels",
    "host_acquire_settings",
    "index_url",
    "make_image_context",
    "no_cpu_torch",
    "read_packages",
    "tool_binary",
]

__getattr__ = lazy_face(
    __name__,
    {
        "archives": "archive_url archive_variable host_acquire_settings",
        "base_packages": "read_packages",
        "named_indexes": "index_url",
        "image_context": "ContextRequest make_image_context",
        "system_files": "fetch_packages",
        "tool_wheels": "ARCHITECTURES TOOL_PYTHON tool_binary",
        "wheelhouse": "NotOfferedError fetch_wheels no_cpu_torch",
    },
)
