"""What an image is made of, as its builder saw it: layers, and the configuration that starts it.

Written beside the records of builds and read for people: nothing is decided by it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.core import DOCUMENT_FAULTS, Project, SlipwayError, write_atomic

LAYERS_FORMAT = "slipway-layers/1"


@dataclass(frozen=True)
class RecordedLayer:
    """One layer. `size` in bytes, as `sizes` of the image says; `diff_id` "" where not known."""

    words: str  # the step that made it
    size: int
    diff_id: str
    of_base: bool


@dataclass(frozen=True)
class ImageLayers:
    """Lowest layer first. `sizes`: "unpacked" or "compressed"."""

    image_id: str
    build_id: str
    sizes: str
    layers: tuple[RecordedLayer, ...]
    env: tuple[str, ...]  # "NAME=value"
    base_env: tuple[str, ...]  # of the base, where it is known
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str
    workdir: str


def _path(project: Project, name: str) -> Path:
    return project.layer_records / f"{name}.json"


def save_image_layers(project: Project, name: str, layers: ImageLayers) -> None:
    """Replace what is recorded of one image."""
    data = {"format": LAYERS_FORMAT, **asdict(layers)}
    write_atomic(_path(project, name), json.dumps(data, indent=2, sort_keys=True) + "\n")


def load_image_layers(project: Project, name: str) -> ImageLayers | None:
    """What is recorded of one image, None for nothing. Raises SlipwayError for a damaged file."""
    path = _path(project, name)
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        if data["format"] != LAYERS_FORMAT:
            raise ValueError("another version of Slipway wrote it")
        layers = tuple(
            RecordedLayer(str(e["words"]), int(e["size"]), str(e["diff_id"]), bool(e["of_base"]))
            for e in data["layers"]
        )
        texts = {
            key: str(data[key]) for key in ("image_id", "build_id", "sizes", "user", "workdir")
        }
        env, base_env, entrypoint, cmd = (
            tuple(str(word) for word in data[key])
            for key in ("env", "base_env", "entrypoint", "cmd")
        )
        return ImageLayers(
            layers=layers,
            env=env,
            base_env=base_env,
            entrypoint=entrypoint,
            cmd=cmd,
            **texts,
        )
    except FileNotFoundError:
        return None
    except (OSError, *DOCUMENT_FAULTS) as error:
        raise SlipwayError(
            f"what is recorded of its layers cannot be read ({error})",
            where=str(path),
            cure=f"Remove the file; `./inv build {name}` records them anew.",
        ) from error
