"""What a start reads of an image: found out by running it, kept as a trace, found in others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.sqsh.start.fuse_connection import FuseConnection, NodeAttributes
    from slipway.sqsh.start.image_paths import traced_files
    from slipway.sqsh.start.start_trace import (
        StartTrace,
        default_trace,
        read_trace,
        trace_text,
    )
    from slipway.sqsh.start.traced_run import trace_start

__all__ = [
    "FuseConnection",
    "NodeAttributes",
    "StartTrace",
    "default_trace",
    "read_trace",
    "trace_start",
    "trace_text",
    "traced_files",
]

__getattr__ = lazy_face(
    __name__,
    {
        "fuse_connection": "FuseConnection NodeAttributes",
        "start_trace": "StartTrace default_trace read_trace trace_text",
        "image_paths": "traced_files",
        "traced_run": "trace_start",
    },
)
