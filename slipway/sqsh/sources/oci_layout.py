"""An OCI layout: a folder of blobs with an index.json (image-spec: image-layout.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway.core import SlipwayError
from slipway.sqsh.image_documents import (
    MANIFEST_MAX,
    ImageIndex,
    ImageMetadataError,
    parse_manifest,
)
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources.blob_store import ImageFinder, stored_image

_PIECE = 1 << 20


class BlobFolder:
    """Blobs by digest below `FOLDER/blobs`, as layouts and containerd's content store have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self._path(digest).is_file()

    def blob_stream(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces."""
        return read_file(self._path(digest))

    manifest_stream = blob_stream


def read_file(path: Path) -> Iterator[bytes]:
    """A plain file in pieces; nothing else is waited for. Raises SlipwayError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(handle, "rb", buffering=0) as stream:  # noqa: PTH123 - a handle
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SlipwayError("a blob is not a file", where=str(path))
            while piece := stream.read(_PIECE):
                yield piece
    except OSError as error:
        raise SlipwayError(f"a blob cannot be read: {error.strerror}", where=str(path)) from error


def layout_image(folder: Path, wanted: str = "") -> SourceImage:
    """The one image of an OCI layout, or the one that is `wanted` by its tag or digest.

    Raises SlipwayError.
    """
    index_path = folder / "index.json"
    raw = bytearray()
    if not index_path.is_file():
        raise _no_layout(folder)
    for piece in read_file(index_path):
        raw += piece
        if len(raw) > MANIFEST_MAX:
            break
    index = parse_manifest(bytes(raw), str(index_path))
    if not isinstance(index, ImageIndex):
        raise _no_layout(folder)
    store = BlobFolder(folder)
    finder = ImageFinder(store)
    image = finder.the_image(index.entries, wanted)
    name = f"oci:{folder.resolve().name}@{image.digest}"
    return stored_image(store, image, finder.description(image), name)


def _no_layout(folder: Path) -> ImageMetadataError:
    return ImageMetadataError(
        "this is not an OCI layout", where=str(folder), cure="Name a folder with an index.json."
    )
