"""An appended image into a registry: the base's layers from where they are, our own from files."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from slipway.append.appended_image import AppendedImage
from slipway.core import Event, OnEvent, PartClaim, SharedParts, silent
from slipway.inventory import BlobReader
from slipway.registry import (
    BlobTransfer,
    FileBlob,
    MemoryBlob,
    RegistryBlob,
    Repository,
    deliver_blobs,
)

SENT_KIND = "sent"


@dataclass(frozen=True)
class DeliveryResult:
    """What is in the registry now. `sent` are bytes that were uploaded.

    `already`: the tag had this very image before, and nothing was asked of blobs.
    """

    uri: str
    digest: str
    media_type: str
    size_bytes: int  # compressed, with the base
    sent: int
    already: bool
    seconds: float


@dataclass(frozen=True)
class _BaseBlob:
    blobs: BlobReader
    digest: str
    size: int

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        skip = offset
        for piece in self.blobs.stream(self.digest, self.size):
            if skip < len(piece):
                yield piece[skip:]
            skip -= min(skip, len(piece))


def deliver_appended(
    image: AppendedImage,
    target: Repository,
    tag: str,
    on_event: OnEvent = silent,
    shared: SharedParts | None = None,
) -> DeliveryResult:
    """Put the image under a tag, its manifest last, so that the tag never names half an image.

    Blobs of the base are mounted where it is in the same registry, else streamed from where they
    are. With `shared` one machine sends a layer, while others that need it wait. Raises
    ImmutableTagError where the tag is another image's, RegistryError's subclasses.
    """
    started = time.monotonic()
    task = f"push {target.name(tag)}"
    manifest = image.manifest
    sent, already = 0, target.client.head(target.path, tag) == manifest.digest
    on_event(Event("start", task))
    try:
        if not already:
            with contextlib.ExitStack() as stack:
                claims = _claim_layers(image, target, shared, stack) if shared else []
                sent = deliver_blobs(target, _transfers(image, target), task, on_event).sent
                for claim in claims:
                    claim.mark()
            target.put_tagged(tag, manifest)
    except BaseException as error:
        on_event(Event("failed", task, text=str(error)))
        raise
    on_event(Event("done", task, text="already there" if already else manifest.digest))
    return DeliveryResult(
        uri=target.name(tag),
        digest=manifest.digest,
        media_type=manifest.media_type,
        size_bytes=manifest.size,
        sent=sent,
        already=already,
        seconds=time.monotonic() - started,
    )


def _claim_layers(
    image: AppendedImage, target: Repository, shared: SharedParts, stack: contextlib.ExitStack
) -> list[PartClaim]:
    """What of the layers is for this process to send; the others are in the target by then."""
    claims = []
    for layer in sorted({str(layer["digest"]) for layer in image.manifest.json()["layers"]}):
        key = hashlib.sha256(target.name(layer).encode()).hexdigest()
        if claim := shared.claim(SENT_KIND, key):
            claims.append(stack.enter_context(claim))
    return claims


def _transfers(image: AppendedImage, target: Repository) -> list[BlobTransfer]:
    """Each blob once: a base may have one layer several times."""
    transfers: dict[str, BlobTransfer] = {}
    for layer in image.base.layers:
        digest, size = str(layer["digest"]), int(layer["size"])
        if image.base.repository:
            transfers[digest] = RegistryBlob(image.base.repository, digest, size).to(target)
        else:
            source = _BaseBlob(image.base.blobs, digest, size)
            transfers[digest] = BlobTransfer(digest, size, source)
    for blob in image.layers:
        transfers[blob.digest] = BlobTransfer(blob.digest, blob.size, FileBlob(blob.path))
    config = image.config_digest
    transfers[config] = BlobTransfer(config, len(image.config), MemoryBlob(image.config))
    return list(transfers.values())
