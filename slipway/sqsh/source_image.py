"""Where a .sqsh comes from: an image's facts, and its layers as something that can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slipway.engine import EngineError
from slipway.squashfs import Source


@dataclass(frozen=True)
class SourceImage:
    """An image to export. `layers` are lowest first.

    `provenance` is the URI that enroot would have been given. `engine_files`: the result gets the
    files that an engine puts into every container, as `enroot import dockerd://` has them.
    """

    image: ImageFacts
    layers: tuple[Source, ...]
    provenance: str
    engine_files: bool


@dataclass(frozen=True)
class ImageFacts:
    """What the engine knows of an image."""

    reference: str
    id: str
    digests: tuple[str, ...]
    size: int  # bytes, unpacked
    created: int  # seconds since the epoch; 0 where the image does not say
    config: ImageConfig


def timestamp_seconds(timestamp: str | None) -> int:
    """An RFC 3339 time -> whole seconds since the epoch, never below 0; 0 where there is none.

    Raises EngineError for any other text. Engines write more decimals than Python 3.10 reads.
    """
    if not timestamp:
        return 0
    parts = re.fullmatch(r"(.{19})(?:\.\d+)?(Z|[+-]\d\d:\d\d)", timestamp)
    try:
        if parts is None:
            raise ValueError(timestamp)
        zone = parts[2].replace("Z", "+00:00")
        return max(0, int(datetime.fromisoformat(f"{timestamp[:19]}{zone}").timestamp()))
    except ValueError as error:
        raise EngineError(f"the engine gave {timestamp!r} as a time") from error


@dataclass(frozen=True)
class ImageConfig:
    """The parts of an image's config that enroot reads."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted by key
    volumes: tuple[str, ...] = ()  # sorted

    @classmethod
    def from_inspect(cls, config: Mapping[str, Any]) -> ImageConfig:
        """From the `Config` of an image inspection or of an OCI config; any key may be null."""
        return cls(
            env=tuple(config.get("Env") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            working_dir=config.get("WorkingDir") or "",
            labels=tuple(sorted((config.get("Labels") or {}).items())),
            volumes=tuple(sorted(config.get("Volumes") or {})),
        )
