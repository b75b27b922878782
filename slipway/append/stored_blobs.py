"""An appended image for who reads it: its blobs by digest, ours from files, the base's from where
the base is; as a folder; and as the base of the next.

The folder is an OCI layout that holds what is new. The base's layers are named in it and not copied
(opencontainers/image-spec:image-layout.md: a blob may be missing, and is had from elsewhere then).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from slipway.append.appended_image import AppendedImage
from slipway.core import file_pieces, write_atomic
from slipway.inventory import LayeredImage
from slipway.registry import ManifestError

REFERENCE = "org.opencontainers.image.ref.name"
BASE = "io.slipway.base"
"""Annotation of the image in the index: where the layers are that the folder does not hold."""


class AppendedBlobs:
    """All blobs of one image. Digests are checked by who reads."""

    def __init__(self, image: AppendedImage) -> None:
        self.where = image.base.where
        self._image = image
        self._files = {layer.digest: layer.path for layer in image.layers}
        self._documents = {
            image.config_digest: image.config,
            image.manifest.digest: image.manifest.raw,
        }
        self._base = {str(layer["digest"]): int(layer["size"]) for layer in image.base.layers}

    def has_blob(self, digest: str) -> bool:
        """Whether the image has the blob."""
        return digest in self._documents or digest in self._files or digest in self._base

    def blob_stream(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces. Raises KeyError for one that the image does not have."""
        if digest in self._documents:
            yield self._documents[digest]
        elif digest in self._files:
            yield from file_pieces(self._files[digest])
        else:
            yield from self._image.base.blobs.stream(digest, self._base[digest])

    manifest_stream = blob_stream


class _CheckedBlobs:
    """The same as an image's reader takes them: a stream that ends has had its digest."""

    def __init__(self, blobs: AppendedBlobs) -> None:
        self._blobs = blobs

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        del size
        hasher = hashlib.sha256()
        for piece in self._blobs.blob_stream(digest):
            hasher.update(piece)
            yield piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise ManifestError(f"{digest} does not have its digest", where=self._blobs.where)


def as_base(image: AppendedImage) -> LayeredImage:
    """The image as the base of another, wherever its layers are."""
    return LayeredImage(
        where=image.base.where,
        manifest=image.manifest,
        config=json.loads(image.config),
        blobs=_CheckedBlobs(AppendedBlobs(image)),
    )


def put_on(below: AppendedImage, image: AppendedImage) -> AppendedImage:
    """An image that was appended to `below`, told from the base that both stand on."""
    return dataclasses.replace(image, base=below.base, layers=(*below.layers, *image.layers))


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
