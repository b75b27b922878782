"""An appended image for who reads it: its blobs by digest, ours from files, the base's from where
the base is; and as the base of the next."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator

from slipway.append.appended_image import AppendedImage
from slipway.inventory import LayeredImage
from slipway.registry import ManifestError

_PIECE = 1 << 20


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
            with self._files[digest].open("rb") as stream:
                while piece := stream.read(_PIECE):
                    yield piece
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
