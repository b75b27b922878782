"""TODO."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from slipway.core import SlipwayError
from slipway.registry import Manifest, choose_manifest, media_type_of
from slipway.sqsh.sources.blobs import StoredImage, _architecture, _origin

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 20


def layout_image(folder: Path) -> StoredImage:
    """The one image of an OCI layout, for this machine's architecture where there are several."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        entries = index["manifests"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlipwayError("this is not an OCI layout", where=str(folder)) from error
    if len(entries) != 1:
        raise SlipwayError(
            f"the OCI layout holds {len(entries)} images, not one",
            where=str(folder),
            cure="Copy the one that is wanted into a layout of its own (`skopeo copy`).",
        )
    manifest = _manifest(folder, entries[0]["digest"])
    if manifest.is_index:
        manifest = _manifest(folder, choose_manifest(manifest, architecture=_architecture()))
    config = _read_blob(folder, manifest.json()["config"]["digest"])

    def open_blob(digest: str) -> Iterator[bytes]:
        return _stream_blob(folder, digest)

    name = f"oci:{folder.name}@{manifest.digest}"
    return StoredImage(_origin(name, name, manifest, config, open_blob), manifest.digest)


def _blob_path(folder: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise SlipwayError(f"{digest!r} is no digest of a blob", where=str(folder))
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _read_blob(folder: Path, digest: str) -> bytes:
    return b"".join(_stream_blob(folder, digest))


def _manifest(folder: Path, digest: str) -> Manifest:
    raw = _read_blob(folder, digest)
    return Manifest(media_type_of(raw, ""), digest, raw)


def _stream_blob(folder: Path, digest: str) -> Iterator[bytes]:
    path = _blob_path(folder, digest)
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                hasher.update(piece)
                yield piece
    except OSError as error:
        raise SlipwayError(f"a blob cannot be read: {error.strerror}", where=str(path)) from error
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise SlipwayError(
            "the blob does not have its digest", where=str(path), cure="Copy the image again."
        )
