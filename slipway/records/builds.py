"""What was made: one JSON file an image. Written by the steps, read by the plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slipway.core.files import write_atomic
from slipway.core.paths import Project


@dataclass(frozen=True)
class Built:
    """A finished build. `inputs` is slipway.derive.build_id.Inputs as JSON."""

    build_id: str
    inputs: dict[str, Any]
    reference: str
    image_id: str
    size: int  # bytes in the engine
    seconds: float


@dataclass(frozen=True)
class Verified:
    """A passed verification of exactly this image by exactly this suite."""

    image_id: str
    suite: str
    passed: int
    deselected: int
    seconds: float


@dataclass(frozen=True)
class Exported:
    """A finished .sqsh."""

    image_id: str
    path: str
    digest: str  # slipway.sqsh.sidecar.Sidecar.digest
    size: int
    seconds: float


@dataclass(frozen=True)
class Pushed:
    """A finished push to one target."""

    image_id: str
    uri: str
    digest: str
    media_type: str
    size: int
    seconds: float


@dataclass(frozen=True)
class Record:
    """All that was made of one image. `pushed` goes by target name."""

    built: Built | None = None
    verified: Verified | None = None
    exported: Exported | None = None
    pushed: dict[str, Pushed] = field(default_factory=dict)


def _path(project: Project, name: str) -> Path:
    return project.records / f"{name}.json"


def load(project: Project, name: str) -> Record:
    """The record of one image; an empty one where nothing was made.

    A record that cannot be read (another version of Slipway, a damaged file) counts as none: what
    it spoke of is then made again, which is always right.
    """
    try:
        data = json.loads(_path(project, name).read_text())
        return Record(
            built=Built(**data["built"]) if data["built"] else None,
            verified=Verified(**data["verified"]) if data["verified"] else None,
            exported=Exported(**data["exported"]) if data["exported"] else None,
            pushed={target: Pushed(**entry) for target, entry in data["pushed"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Record()


def save(project: Project, name: str, record: Record) -> None:
    """Replace the record of one image."""
    write_atomic(_path(project, name), json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")
