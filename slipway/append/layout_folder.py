"""The result of a build without an engine: an OCI layout that holds what is new.

The base's layers are named in it and not copied (opencontainers/image-spec:image-layout.md: a
blob may be missing, and is had from elsewhere then).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from slipway.append.appended_image import AppendedImage
from slipway.core import write_atomic

REFERENCE = "org.opencontainers.image.ref.name"
BASE = "io.slipway.base"
"""Annotation of the image in the index: where the layers are that the folder does not hold."""


def write_layout(image: AppendedImage, folder: Path, name: str) -> None:
    """Write the image below `folder` as the only one; the index last, so that it is whole.

    What an earlier build left and this image does not need is removed.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    kept = {image.manifest.digest, image.config_digest, *(layer.digest for layer in image.layers)}
    for layer in image.layers:
        _link(layer.path, blobs / layer.digest.removeprefix("sha256:"))
    write_atomic(blobs / image.config_digest.removeprefix("sha256:"), image.config)
    write_atomic(blobs / image.manifest.digest.removeprefix("sha256:"), image.manifest.raw)
    write_atomic(folder / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
    entry = {
        "mediaType": image.manifest.media_type,
        "digest": image.manifest.digest,
        "size": len(image.manifest.raw),
        "annotations": {REFERENCE: name, BASE: image.base.where},
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    write_atomic(folder / "index.json", json.dumps(index, indent=1))
    for path in blobs.iterdir():
        if f"sha256:{path.name}" not in kept:
            path.unlink()


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system: the bytes twice
        write_atomic(target, source.read_bytes())
