"""Images kept as blobs by digest: found through indexes and manifests, whatever keeps the blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from slipway.sqsh.image_documents import (
    CONFIG_MAX,
    MANIFEST_MAX,
    BlobDescriptor,
    ImageDescription,
    ImageIndex,
    ImageManifest,
    ImageMetadataError,
    parse_image_config,
    parse_manifest,
)
from slipway.sqsh.source_image import SourceImage, machine_architecture
from slipway.squashfs import LayerError, TarSource

_DEPTH_MAX = 8
_MANIFESTS_MAX = 500
PACKED_RATIO = 0.45
"""Packed over unpacked size of training images' layers, which nothing tells before."""


class BlobStore(Protocol):
    """Where blobs are. What it gives is checked against its digest by whoever asked."""

    where: str

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""

    def blob_stream(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces."""

    def manifest_stream(self, digest: str) -> Iterator[bytes]:
        """A manifest in pieces; registries keep them apart from other blobs."""


def read_small(pieces: Iterator[bytes], digest: str, limit: int, where: str) -> bytes:
    """All of a small blob, its digest checked. Raises ImageMetadataError."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > limit:
            raise ImageMetadataError(f"{digest} has more than {limit} bytes", where=where)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ImageMetadataError(f"{digest} does not have its digest", where=where)
    return bytes(data)


@dataclass(frozen=True)
class StoredManifest:
    """An image's manifest in a store, and the names under which an index lists it."""

    digest: str
    manifest: ImageManifest
    names: tuple[str, ...] = ()


class ImageFinder:
    """Finds the images that an index leads to. Memory and steps are bounded."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._read = 0

    def document(self, digest: str) -> ImageManifest | ImageIndex:
        """A manifest or an index of the store."""
        self._read += 1
        if self._read > _MANIFESTS_MAX:
            raise ImageMetadataError(
                f"the index leads to more than {_MANIFESTS_MAX} manifests", where=self._store.where
            )
        stream = self._store.manifest_stream(digest)
        raw = read_small(stream, digest, MANIFEST_MAX, self._store.where)
        return parse_manifest(raw, f"{self._store.where}, {digest}")

    def images(
        self, entries: tuple[BlobDescriptor, ...], depth: int = 0
    ) -> dict[str, StoredManifest]:
        """The images of index entries, by digest: this machine's, where platforms are told.

        What stands beside images (attestations, signatures) is none of them, an image under two
        names is one, and what the store does not have is left out: an index may list platforms
        whose blobs were never fetched.
        """
        if depth > _DEPTH_MAX:
            raise ImageMetadataError("indexes within indexes", where=self._store.where)
        wanted = f"linux/{machine_architecture()}"
        unique: dict[str, BlobDescriptor] = {}
        names: dict[str, tuple[str, ...]] = {}
        for entry in entries:
            unique.setdefault(entry.digest, entry)
            names[entry.digest] = (*names.get(entry.digest, ()), *entry.names)
        there = [
            entry
            for entry in unique.values()
            if not entry.is_attestation and self._store.has_blob(entry.digest)
        ]
        chosen = [entry for entry in there if entry.platform in ("", wanted)]
        manifests: dict[str, StoredManifest] = {}
        # An image for another machine is better than none, as long as it is the only one.
        for entry in chosen or (there if len(there) == 1 else []):
            document = self.document(entry.digest)
            if isinstance(document, ImageIndex):
                for digest, image in self.images(document.entries, depth + 1).items():
                    manifests[digest] = StoredManifest(
                        digest, image.manifest, (*names[entry.digest], *image.names)
                    )
            elif not document.is_artifact:
                manifests[entry.digest] = StoredManifest(
                    entry.digest, document, names[entry.digest]
                )
        if not manifests and there and not chosen:
            platforms = ", ".join(sorted({entry.platform for entry in there}))
            raise ImageMetadataError(
                f"there is no image for {wanted}, only for {platforms}", where=self._store.where
            )
        return manifests

    def the_image(self, entries: tuple[BlobDescriptor, ...], wanted: str = "") -> StoredManifest:
        """The one image of an index, or the one that is `wanted` by name, tag or digest."""
        images = self.images(entries)
        if wanted:
            images = {
                digest: image
                for digest, image in images.items()
                if any(matches_name(name, wanted) for name in (digest, *image.names))
            }
        if len(images) > 1:
            wanted_architecture = machine_architecture()
            mine = {
                digest: image
                for digest, image in images.items()
                if self.description(image).architecture == wanted_architecture
            }
            images = mine or images
        if len(images) == 1:
            return next(iter(images.values()))
        if not images:
            raise ImageMetadataError(
                f"there is no image {wanted!r}" if wanted else "there is no image",
                where=self._store.where,
            )
        listed = [" ".join((digest[:19], *image.names)) for digest, image in images.items()]
        raise ImageMetadataError(
            f"there are {len(images)} images: {', '.join(listed[:10])}",
            where=self._store.where,
            cure="Say which one, by its tag or digest at the end: oci:FOLDER:TAG,"
            " oci:FOLDER@sha256:..., docker-archive:FILE:NAME:TAG.",
        )

    def description(self, image: StoredManifest) -> ImageDescription:
        """An image's configuration."""
        digest = image.manifest.config.digest
        raw = read_small(self._store.blob_stream(digest), digest, CONFIG_MAX, self._store.where)
        return parse_image_config(raw, f"{self._store.where}, {digest}")


def matches_name(name: str, wanted: str) -> bool:
    """Whether a name that an image has is the one that is asked for, wholly or by its tag."""
    return name == wanted or name.endswith((f":{wanted}", f"/{wanted}"))


def stored_image(
    store: BlobStore, image: StoredManifest, description: ImageDescription, reference: str
) -> SourceImage:
    """The image, its layers read from the store when they are needed."""
    layers = image.manifest.layers
    if len(layers) != len(description.diff_ids):
        raise ImageMetadataError(
            f"the image has {len(layers)} layers and its configuration {len(description.diff_ids)}",
            where=store.where,
        )
    return SourceImage(
        reference=reference,
        id=image.manifest.config.digest,
        digests=(reference,) if "@" in reference else (),
        digest=image.digest,
        size=int(sum(layer.size for layer in layers) / PACKED_RATIO),
        architecture=description.architecture,
        created=description.created,
        config=description.config,
        layers=tuple(
            TarSource(diff_id, _Blob(store, layer).pieces, layer.size)
            for diff_id, layer in zip(description.diff_ids, layers, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Blob:
    """A layer's blob: not longer than it says, and with its digest."""

    store: BlobStore
    descriptor: BlobDescriptor

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises LayerError."""
        hasher, size = hashlib.sha256(), 0
        digest = self.descriptor.digest
        for piece in self.store.blob_stream(digest):
            size += len(piece)
            if size > self.descriptor.size:
                raise LayerError(
                    f"{digest} does not have its digest: it is longer than it should be",
                    where=self.store.where,
                )
            hasher.update(piece)
            yield piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise LayerError(
                f"{digest} does not have its digest",
                where=self.store.where,
                cure="Copy the image again.",
            )
