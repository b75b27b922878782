"""An image of an engine on this machine: its layer directories, read where they are."""

from __future__ import annotations

import os
from pathlib import Path

from slipway.engine.client import Engine
from slipway.engine.images import inspect
from slipway.sqsh.origin import Origin
from slipway.sqsh.source import SourceImage
from slipway.squashfs.sources import DirSource


def find_layers(engine: Engine, image: SourceImage) -> Origin | None:
    """The image with its overlay2 directories; None where this process cannot read them.

    That is so for engines elsewhere, for other stores (containerd's snapshots are not named by
    the API) and for users who are not root.
    """
    if engine.containerd_store or not engine.url.startswith("unix:"):
        return None
    found = inspect(engine, image.id)
    driver = found.get("GraphDriver") or {}
    if driver.get("Name") != "overlay2":
        return None
    # The upper directory is the topmost layer; the lower ones are listed from the top down
    # (moby/moby:daemon/graphdriver/overlay2/overlay.go, GetMetadata).
    data = driver.get("Data") or {}
    listed = [data.get("UpperDir", ""), *(data.get("LowerDir") or "").split(":")]
    folders = [Path(folder) for folder in reversed(listed) if folder]
    digests = found["RootFS"].get("Layers") or []
    if len(folders) != len(digests) or not all(map(_readable, folders)):
        return None
    return Origin(
        image,
        tuple(map(DirSource, digests, folders)),
        f"dockerd://{image.reference}",
        engine_files=True,
    )


def _readable(folder: Path) -> bool:
    try:
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        return False
