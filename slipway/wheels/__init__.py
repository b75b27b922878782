"""Wheels and tools by their locked hashes: fetched, built, laid out for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.wheels.base_packages import read_packages
    from slipway.wheels.image_context import ContextRequest, make_image_context
    from slipway.wheels.named_indexes import index_url
    from slipway.wheels.tool_wheels import ARCHITECTURES, TOOL_PYTHON, tool_binary
    from slipway.wheels.wheelhouse import NotOfferedError, fetch_wheels, no_cpu_torch

__all__ = [
    "ARCHITECTURES",
    "TOOL_PYTHON",
    "ContextRequest",
    "NotOfferedError",
    "fetch_wheels",
    "index_url",
    "make_image_context",
    "no_cpu_torch",
    "read_packages",
    "tool_binary",
]

__getattr__ = lazy_face(
    __name__,
    {
        "base_packages": "read_packages",
        "named_indexes": "index_url",
        "image_context": "ContextRequest make_image_context",
        "tool_wheels": "ARCHITECTURES TOOL_PYTHON tool_binary",
        "wheelhouse": "NotOfferedError fetch_wheels no_cpu_torch",
    },
)
