"""How an image is packed, and for which start.

What a start of an image reads is kept with its lock, so that every export of it profits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import Project, UsageError, write_atomic
from slipway.records import start_lock_path
from slipway.sqsh import start as starts
from slipway.sqsh.start import StartTrace, default_trace, read_trace
from slipway.squashfs import SqshOptions


@dataclass(frozen=True)
class Packing:
    """How an image is packed, and for which start."""

    options: SqshOptions = field(default_factory=SqshOptions)
    start: StartTrace = field(default_factory=default_trace)

    def as_json(self) -> dict[str, Any]:
        """As plain values, for the sidecar."""
        return {**self.options.as_json(), "start": self.start.digest[:16]}


def image_packing(project: Project, image: str, options: SqshOptions) -> Packing:
    """How an image of the matrix is packed: for its own traced start, else for the default one."""
    path = start_lock_path(project, image)
    return Packing(options, read_trace(path) if path.is_file() else default_trace())


def record_start(sqsh: Path, command: Sequence[str], output: Path) -> StartTrace:
    """Run `command` in a .sqsh and write what it reads to `output`. Raises SlipwayError."""
    if not command:
        raise UsageError(
            "there is no command to trace",
            cure="Give what a job starts with after --: ... -- python -c 'import torch'",
        )
    trace = starts.trace_start(sqsh, command)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, starts.trace_text(trace))
    return trace
