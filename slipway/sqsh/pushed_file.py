"""A .sqsh into the repository of its image: pieces as blobs, in a manifest that refers to it.

    manifest    artifactType application/vnd.slipway.sqsh.v1, subject: the image
      layers    the sidecar, then each piece once, by its own sha256
      annotations   title: the file's name; created: of the push that counts is the last

A piece that the repository has already, of an earlier build, is not sent again. Nodes fetch from it
with the standard library alone (entrypoints/launcher/fetch/registry_origin.py, which reads what is
written here).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from slipway.core import OnEvent, Piece, UsageError, sha256_file
from slipway.registry import (
    OCI_MANIFEST,
    BlobTransfer,
    Manifest,
    MemoryBlob,
    Repository,
    deliver_blobs,
    digest_of,
    put_referrer,
)
from slipway.sqsh.sidecar import read_sidecar, sidecar_path

SQSH_ARTIFACT = "application/vnd.slipway.sqsh.v1"
SIDECAR_BLOB = "application/vnd.slipway.sqsh.sidecar.v1+json"
PIECE_BLOB = "application/vnd.slipway.sqsh.piece.v1"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
_EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_READ = 1 << 20


@dataclass(frozen=True)
class PushedFile:
    """A .sqsh in a registry. `sent` are the bytes that were uploaded; `already`: all was there."""

    digest: str
    sent: int
    size: int
    already: bool


@dataclass(frozen=True)
class FilePart:
    """A stretch of a file as the source of a blob; the registry checks its digest."""

    path: Path
    start: int
    size: int

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        with self.path.open("rb") as stream:
            stream.seek(self.start + offset)
            left = self.size - offset
            while left and (data := stream.read(min(_READ, left))):
                left -= len(data)
                yield data


def push_sqsh(path: Path, repository: Repository, image: str, on_event: OnEvent) -> PushedFile:
    """Put a .sqsh beside the image that `image`, a tag or digest of the repository, names.

    Raises SlipwayError where the file has no sidecar, and RegistryError's subclasses; a second run
    goes on from the blobs that arrived.
    """
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise UsageError(
            "there is no sidecar, which says what the pieces are",
            where=str(sidecar_path(path)),
            cure="Copy the .json together with the .sqsh, or export the image again.",
        )
    subject = repository.client.manifest(repository.path, image)
    beside = sidecar_path(path)
    raw_size = beside.stat().st_size
    blobs = [
        BlobTransfer(f"sha256:{sha256_file(beside)}", raw_size, FilePart(beside, 0, raw_size)),
        *_piece_blobs(path, sidecar.pieces),
    ]
    layers = [
        {
            "mediaType": SIDECAR_BLOB if number == 0 else PIECE_BLOB,
            "digest": blob.digest,
            "size": blob.size,
        }
        for number, blob in enumerate(blobs)
    ]
    if present := _present(repository, subject.digest, path.name, layers):
        return PushedFile(present, 0, sidecar.size, True)
    empty = b"{}"
    config = BlobTransfer(digest_of(empty), len(empty), MemoryBlob(empty))
    delivered = deliver_blobs(repository, [*blobs, config], f"push {path.name}", on_event)
    manifest = _artifact(path.name, subject, config, layers)
    put_referrer(repository, manifest)
    return PushedFile(manifest.digest, delivered.sent, sidecar.size, False)


def _piece_blobs(path: Path, pieces: tuple[Piece, ...]) -> list[BlobTransfer]:
    """Each content once."""
    blobs: dict[str, BlobTransfer] = {}
    start = 0
    for piece in pieces:
        digest = f"sha256:{piece.sha256}"
        if digest not in blobs:
            blobs[digest] = BlobTransfer(digest, piece.size, FilePart(path, start, piece.size))
        start += piece.size
    return list(blobs.values())


def _present(
    repository: Repository, subject: str, name: str, layers: list[dict[str, Any]]
) -> str | None:
    """Digest of the newest .sqsh beside the image, where it is this very file; else None."""
    pushed: list[tuple[str, str, dict[str, Any]]] = []
    for digest in repository.client.referrers(repository.path, subject):
        content = repository.client.manifest(repository.path, digest).json()
        if content.get("artifactType") == SQSH_ARTIFACT:
            notes = content.get("annotations") or {}
            pushed.append((str(notes.get(CREATED, "")), digest, content))
    if not pushed:
        return None
    _, digest, content = max(pushed, key=lambda entry: entry[:2])
    same = content["layers"] == layers and content["annotations"].get(TITLE) == name
    return digest if same else None


def _artifact(
    name: str, subject: Manifest, config: BlobTransfer, layers: list[dict[str, Any]]
) -> Manifest:
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": SQSH_ARTIFACT,
        "config": {"mediaType": _EMPTY_CONFIG, "digest": config.digest, "size": config.size},
        "layers": layers,
        "subject": {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": len(subject.raw),
        },
        "annotations": {
            TITLE: name,
            CREATED: datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        },
    }
    raw = json.dumps(content, separators=(",", ":")).encode()
    return Manifest(OCI_MANIFEST, digest_of(raw), raw)
