"""What the pages are made of, as values; gathered by `fact_sources`, turned into pages by the rest.

A thing that could not be read is a problem with a name, and everything else is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from slipway.derive import PlanStep
from slipway.matrix import Image
from slipway.records import (
    BaseLock,
    ImageInventory,
    ImageLayers,
    ImageRecord,
    PythonLock,
    RecordedRun,
)


@dataclass(frozen=True)
class CheckResult:
    """One check of an image by its last verification. `state`: passed, failed, skipped."""

    name: str
    place: str  # module of the check
    state: str
    seconds: float
    text: str = ""


@dataclass(frozen=True)
class SqshFacts:
    """What the sidecar of an exported file says, and whether the file is there."""

    path: str
    size: int
    digest: str
    entries: int
    options: Mapping[str, Any]
    hot: tuple[tuple[int, int], ...]  # (start, end) of what a start reads, in reading order
    exists: bool


@dataclass(frozen=True)
class ImageFacts:
    """All that is known of one image without asking anybody."""

    image: Image
    step: PlanStep
    record: ImageRecord
    base_lock: BaseLock | None = None
    python: tuple[tuple[str, PythonLock], ...] = ()  # add-on -> its closure, in layer order
    layers: ImageLayers | None = None
    checks: tuple[CheckResult, ...] = ()
    sqsh: SqshFacts | None = None
    base_inventory: ImageInventory | None = None
    may_move: Mapping[str, str] = field(default_factory=dict)  # package of the base -> reason


@dataclass(frozen=True)
class StoredData:
    """One kind of data on a disk. `used` None: only root may look."""

    what: str
    path: str
    disk: str
    used: int | None
    free: int
    note: str = ""


@dataclass(frozen=True)
class RemovableData:
    """One thing that `storage.prune` would remove."""

    what: str
    name: str
    size: int


@dataclass(frozen=True)
class DiskFacts:
    """What storage.status and storage.prune know. `engine`: why it was not asked, "" if it was."""

    places: tuple[StoredData, ...]
    removable: tuple[RemovableData, ...]
    older_than: str
    engine: str


@dataclass(frozen=True)
class ReportFacts:
    """Everything but jobs. `problems` are sentences that name what could not be read."""

    today: date
    slipway: str  # version
    images: tuple[ImageFacts, ...]
    runs: tuple[RecordedRun, ...]  # oldest first
    disk: DiskFacts | None
    problems: tuple[str, ...] = ()
