"""What can go wrong between Slipway and the Docker daemon, each as one typed error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from slipway.core import INTERRUPTED, SlipwayError

_FULL = re.compile(r"no space left on device|disk quota exceeded|errno 28\b", re.IGNORECASE)


class EngineError(SlipwayError):
    """The engine refused something or answered something unexpected."""


class EngineUnavailableError(EngineError):
    """No daemon answers and none could be started."""


class EngineDiedError(EngineError):
    """The daemon went away in the middle of a piece of work."""


class DiskFullError(EngineError):
    """The disk that holds the engine's data has no space left."""


DAMAGED_LAYER_CURE = (
    "Its files were changed, or it was imported from a tar with sparse files, which an engine "
    "cannot put together again (moby/moby#37680). Build, pull or import its image anew."
)


class DamagedLayerError(EngineError):
    """A layer whose files and records do not give its digest: no engine pushes it."""

    def __init__(self, diff_id: str) -> None:
        what = f"the engine's files of the layer {diff_id} are not those of its digest"
        super().__init__(what, cure=DAMAGED_LAYER_CURE)


class BuildCancelledError(EngineError):
    """The caller set `cancel`; the daemon stopped the build and tagged nothing."""

    exit_code = INTERRUPTED


class BuildFailedError(EngineError):
    """A step of a Dockerfile failed, or the Dockerfile itself is wrong.

    `step` is the step as BuildKit names it ("[stage-0 2/5] RUN ..."), None where the failure
    belongs to none; `last_lines` are the last lines that it printed; `log` has all of them.
    """

    def __init__(
        self,
        task: str,
        reason: str,
        *,
        step: str | None,
        last_lines: tuple[str, ...],
        log: Path,
        advice: str | None = None,
    ) -> None:
        what = f"{task} failed at {step}: {reason}" if step else f"{task} failed: {reason}"
        super().__init__(
            "\n".join([what, *(f"  | {line}" for line in last_lines)]),
            cure="\n  ".join([*([advice] if advice else []), f"The full log is {log}"]),
        )
        self.step = step
        self.reason = reason
        self.last_lines = last_lines
        self.log = log


TransferKind = Literal[
    "unauthorized",
    "denied",
    "expired",
    "immutable",
    "not_found",
    "throttled",
    "server",
    "network",
    "disk_full",
    "other",
]


class TransferError(EngineError):
    """A pull or a push failed. `retry` says whether the same call may succeed a moment later."""

    def __init__(
        self, kind: TransferKind, what: str, *, retry: bool, where: str, cure: str | None = None
    ) -> None:
        super().__init__(what, where=where, cure=cure)
        self.kind: TransferKind = kind
        self.retry = retry


def is_full(text: str) -> bool:
    """Whether an error text of the daemon, or of a program in a container, says ENOSPC."""
    return bool(_FULL.search(text))
