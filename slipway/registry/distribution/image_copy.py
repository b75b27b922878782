"""An image from one registry to another, blob by blob: no disk, no engine, no recompression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slipway.core import Event, OnEvent, silent
from slipway.registry.distribution.blob_transfer import (
    BlobTransfer,
    RegistryBlob,
    Repository,
    deliver_blobs,
)
from slipway.registry.errors import ManifestError
from slipway.registry.manifests import Manifest


@dataclass(frozen=True)
class CopyResult:
    """What a copy did. `sent` are bytes that were uploaded; blobs that were there, or could be
    mounted, cost none. `already`: the target had the manifest, and nothing was asked of blobs."""

    digest: str
    sent: int
    total: int
    already: bool


def copy_image(
    source: Repository,
    reference: str,
    target: Repository,
    tag: str | None = None,
    *,
    on_event: OnEvent = silent,
    prepare: Callable[[], None] = lambda: None,
) -> CopyResult:
    """Copy an image (or an index with all its images); its digest stays the same.

    Blobs that the target has are not read; where both are of one registry they are mounted. The
    manifest is put last, so that a tag never names an image that is not whole. `tag` None: the
    manifest is put under its digest. `prepare` is called before anything is sent, when the source
    has been read. Raises RegistryError's subclasses; a second run goes on from the blobs that
    arrived.
    """
    task = f"copy {source.name(reference)}"
    manifest = source.client.manifest(source.path, reference)
    goal = tag or manifest.digest
    if target.client.find_digest(target.path, goal) == manifest.digest:
        on_event(Event("cached", task, text=f"{target.name(goal)} is there"))
        return CopyResult(manifest.digest, 0, 0, True)
    on_event(Event("start", task))
    try:
        images = _images(source, manifest)
        prepare()
        copied = deliver_blobs(target, _blobs(source, target, images), task, on_event)
        for image in images:
            target.client.put_manifest(target.path, image.digest, image)
        target.put_tagged(goal, manifest)
    except BaseException as error:
        on_event(Event("failed", task, text=str(error)))
        raise
    on_event(Event("done", task, text=manifest.digest))
    return CopyResult(manifest.digest, copied.sent, copied.total, False)


def _images(source: Repository, manifest: Manifest) -> list[Manifest]:
    """The images behind a manifest; an index in an index is not followed (nobody makes them)."""
    if not manifest.is_index:
        return [manifest]
    entries = manifest.json()["manifests"]
    images = [source.client.manifest(source.path, entry["digest"]) for entry in entries]
    for image in images:
        if image.is_index:
            raise ManifestError("an index inside of an index", where=source.name(image.digest))
    return images


def _blobs(source: Repository, target: Repository, images: list[Manifest]) -> list[BlobTransfer]:
    """What the images are made of, each blob once."""
    sizes: dict[str, int] = {}
    for image in images:
        content = image.json()
        for part in [*content["layers"], content["config"]]:
            sizes[part["digest"]] = part["size"]
    return [RegistryBlob(source, digest, size).to(target) for digest, size in sizes.items()]
