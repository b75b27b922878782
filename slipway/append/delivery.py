"""An appended image into a registry: the base's layers from where they are, our own from files."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slipway.append.appended_image import AppendedImage
from slipway.append.layer_blobs import LayerBlob
from slipway.core import Event, OnEvent, PartClaim, SharedParts, silent
from slipway.inventory import BlobReader, LayeredImage
from slipway.registry import (
    BlobDelivery,
    BlobTransfer,
    MemoryBlob,
    RegistryBlob,
    Repository,
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


class AppendedDelivery:
    """An image on its way into a repository under a tag, its manifest last, so that the tag never
    names half an image.

    Blobs of the base are mounted where it is in the same registry, else streamed from where they
    are. `add` sends a layer while others are still made. With `shared` one machine sends a layer,
    while others that need it wait: which ones these are is told when all are made, so nothing is
    sent before. `prepare` is called once before anything is sent, so that a build which fails
    leaves no empty repository.
    """

    def __init__(
        self,
        target: Repository,
        tag: str,
        on_event: OnEvent = silent,
        shared: SharedParts | None = None,
        base: LayeredImage | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.target, self.tag, self.base = target, tag, base
        self._prepare = prepare
        self._on_event, self._shared = on_event, shared
        self._task = f"push {target.name(tag)}"
        self._blobs = BlobDelivery(target, self._task, on_event)
        self._lock = threading.Lock()
        self._under_way = False

    def __enter__(self) -> AppendedDelivery:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._under_way:
            self._on_event(Event("failed", self._task, text=str(error or "it was given up")))
        self._blobs.__exit__()

    def _start(self) -> bool:
        """Have the target ready, and say that it begins. False: that was done."""
        with self._lock:
            if self._under_way:
                return False
            self._prepare()
            self._under_way = True
        self._on_event(Event("start", self._task))
        return True

    def add(self, layer: LayerBlob) -> None:
        """A layer of the image is made; with the first one, the base's are sent as well."""
        if self._shared is None:
            first = self._start()
            self._blobs.add(layer.transfer)
            if first and self.base is not None:
                for blob in _base_transfers(self.base, self.target):
                    self._blobs.add(blob)

    def finish(self, image: AppendedImage) -> DeliveryResult:
        """Have all of the image there, and the tag. Raises ImmutableTagError where the tag is
        another image's, RegistryError's subclasses."""
        started = time.monotonic()
        target, manifest = self.target, image.manifest
        already = target.client.find_digest(target.path, self.tag) == manifest.digest
        self._start()
        if not already:
            with contextlib.ExitStack() as stack:
                claims = _claim_layers(image, target, self._shared, stack) if self._shared else []
                for blob in _transfers(image, target):
                    self._blobs.add(blob)
                self._blobs.finish()
                for claim in claims:
                    claim.mark()
            target.put_tagged(self.tag, manifest)
        self._under_way = False
        text = "already there" if already else manifest.digest
        self._on_event(Event("done", self._task, text=text))
        return DeliveryResult(
            uri=target.name(self.tag),
            digest=manifest.digest,
            media_type=manifest.media_type,
            size_bytes=manifest.size,
            sent=self._blobs.progress.sent,
            already=already,
            seconds=time.monotonic() - started,
        )


def deliver_appended(
    image: AppendedImage,
    target: Repository,
    tag: str,
    on_event: OnEvent = silent,
    shared: SharedParts | None = None,
) -> DeliveryResult:
    """Put an image that is made under a tag. Raises as AppendedDelivery.finish does."""
    with AppendedDelivery(target, tag, on_event, shared) as delivery:
        return delivery.finish(image)


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
    """All blobs of an image."""
    config = image.config_digest
    return [
        *_base_transfers(image.base, target),
        *(layer.transfer for layer in image.layers),
        BlobTransfer(config, len(image.config), MemoryBlob(image.config)),
    ]


def _base_transfers(base: LayeredImage, target: Repository) -> Iterator[BlobTransfer]:
    """The base's layers, from where they are."""
    for layer in base.layers:
        digest, size = str(layer["digest"]), int(layer["size"])
        if base.repository:
            yield RegistryBlob(base.repository, digest, size).to(target)
        else:
            yield BlobTransfer(digest, size, _BaseBlob(base.blobs, digest, size))
