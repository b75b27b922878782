"""Where a .sqsh comes from: an image's facts, and its layers as something that can be read."""

from __future__ import annotations

from dataclasses import dataclass

from slipway.sqsh.source import SourceImage
from slipway.squashfs.sources import Source


@dataclass(frozen=True)
class Origin:
    """An image to export. `layers` are lowest first.

    `provenance` is the URI that enroot would have been given. `engine_files`: the result gets the
    files that an engine puts into every container, as `enroot import dockerd://` has them.
    """

    image: SourceImage
    layers: tuple[Source, ...]
    provenance: str
    engine_files: bool
