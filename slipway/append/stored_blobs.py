"""An appended image as blobs by digest, for who reads its layers: ours from files, the base's from
where the base is."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.append.appended_image import AppendedImage

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
