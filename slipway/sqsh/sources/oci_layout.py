"""Images in folders: OCI layouts (image-spec: image-layout.md), and what skopeo calls `dir:`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway.core import SlipwayError
from slipway.registry import digest_of
from slipway.sqsh.image_documents import (
    MANIFEST_MAX,
    ImageIndex,
    ImageMetadataError,
    parse_manifest,
)
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources.blob_store import ImageFinder, StoredManifest, stored_image

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
    if not index_path.is_file():
        raise _no_layout(folder)
    index = parse_manifest(_document(index_path), str(index_path))
    if not isinstance(index, ImageIndex):
        raise _no_layout(folder)
    store = BlobFolder(folder)
    finder = ImageFinder(store)
    image = finder.the_image(index.entries, wanted)
    name = f"oci:{folder.resolve().name}@{image.digest}"
    return stored_image(store, image, finder.description(image), name)


def _document(path: Path) -> bytes:
    """A manifest or an index; of one that is too long as much as shows it."""
    raw = bytearray()
    for piece in read_file(path):
        raw += piece
        if len(raw) > MANIFEST_MAX:
            break
    return bytes(raw)


class FlatFolder(BlobFolder):
    """Blobs by the hex of their digests, and manifests of an index as HEX.manifest.json
    (containers/image: directory/directory_transport.go)."""

    def _path(self, digest: str) -> Path:
        return self.folder / digest.removeprefix("sha256:")

    def _manifest_path(self, digest: str) -> Path:
        return self.folder / f"{digest.removeprefix('sha256:')}.manifest.json"

    def has_blob(self, digest: str) -> bool:
        """Whether the blob or the manifest is there."""
        return super().has_blob(digest) or self._manifest_path(digest).is_file()

    def manifest_stream(self, digest: str) -> Iterator[bytes]:
        """A manifest in pieces."""
        return read_file(self._manifest_path(digest))


def flat_image(folder: Path, wanted: str = "") -> SourceImage:
    """The image of a folder that `skopeo copy ... dir:FOLDER` wrote; `wanted` is a digest.

    Raises SlipwayError.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise ImageMetadataError(
            "this is not a folder that `skopeo copy ... dir:FOLDER` wrote",
            where=str(folder),
            cure="Name a folder with a manifest.json; oci:FOLDER is for one with an index.json.",
        )
    raw = _document(path)
    document = parse_manifest(raw, str(path))
    store = FlatFolder(folder)
    finder = ImageFinder(store)
    image = (
        finder.the_image(document.entries, wanted)
        if isinstance(document, ImageIndex)
        else StoredManifest(digest_of(raw), document)
    )
    if wanted not in ("", image.digest):
        raise ImageMetadataError(f"there is no image {wanted!r}", where=str(folder))
    name = f"dir:{folder.resolve().name}@{image.digest}"
    return stored_image(store, image, finder.description(image), name)


def _no_layout(folder: Path) -> ImageMetadataError:
    return ImageMetadataError(
        "this is not an OCI layout",
        where=str(folder),
        cure="Name a folder with an index.json; a file is named as oci-archive:FILE.",
    )
