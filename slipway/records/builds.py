"""What was made: one JSON file an image. Written by the steps, read by the plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import DOCUMENT_FAULTS, Project, SlipwayError, write_atomic


@dataclass(frozen=True)
class BuildRecord:
    """A finished build. `inputs` is slipway.derive.build_id.BuildInputs as JSON."""

    build_id: str
    inputs: dict[str, Any]
    reference: str
    image_id: str
    size: int  # bytes in the engine
    seconds: float


@dataclass(frozen=True)
class VerifyRecord:
    """A passed verification of exactly this image by exactly this suite."""

    image_id: str
    suite: str
    passed: int
    deselected: int
    seconds: float


@dataclass(frozen=True)
class ExportRecord:
    """A finished .sqsh."""

    image_id: str
    path: str
    digest: str  # slipway.sqsh.sidecar.Sidecar.digest
    size: int
    seconds: float


@dataclass(frozen=True)
class PushRecord:
    """A finished push to one target. `documented`: its bill of materials is beside it."""

    image_id: str
    uri: str
    digest: str
    media_type: str
    size: int
    seconds: float
    documented: bool = False

    @property
    def by_digest(self) -> str:
        """host/repository@digest."""
        return f"{self.uri.rpartition(':')[0]}@{self.digest}"


@dataclass(frozen=True)
class ImageRecord:
    """All that was made of one image. `pushed` goes by target name."""

    built: BuildRecord | None = None
    verified: VerifyRecord | None = None
    exported: ExportRecord | None = None
    pushed: dict[str, PushRecord] = field(default_factory=dict)


def _path(project: Project, name: str) -> Path:
    return project.records / f"{name}.json"


def load_record(project: Project, name: str) -> ImageRecord:
    """The record of one image; an empty one where nothing was made.

    A record that cannot be read (another version of Slipway, a damaged file) counts as none: what
    it spoke of is then made again, which is always right.
    """
    try:
        return read_record(project, name)
    except SlipwayError:
        return ImageRecord()


def read_record(project: Project, name: str) -> ImageRecord:
    """As `load_record`, for who shows it: raises SlipwayError for one that cannot be read."""
    path = _path(project, name)
    try:
        data = json.loads(path.read_text())
        return ImageRecord(
            built=BuildRecord(**data["built"]) if data["built"] else None,
            verified=VerifyRecord(**data["verified"]) if data["verified"] else None,
            exported=ExportRecord(**data["exported"]) if data["exported"] else None,
            pushed={target: PushRecord(**entry) for target, entry in data["pushed"].items()},
        )
    except FileNotFoundError:
        return ImageRecord()
    except (OSError, *DOCUMENT_FAULTS) as error:
        raise SlipwayError(
            f"this record cannot be read ({type(error).__name__})",
            where=str(path),
            cure=f"It counts as none: `./inv ship {name}` makes what it spoke of again.",
        ) from error


def save_record(project: Project, name: str, record: ImageRecord) -> None:
    """Replace the record of one image."""
    write_atomic(_path(project, name), json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")
