"""An image from one registry to another, blob by blob: no disk, no engine, no recompression."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

from slipway.core import Event, OnEvent, silent
from slipway.registry.distribution.blob_upload import send_blob
from slipway.registry.distribution.registry_client import RegistryClient
from slipway.registry.errors import ManifestError, RegistryError
from slipway.registry.manifests import Manifest

BLOBS_AT_ONCE = 4
"""Each blob on its way holds about three pieces of an upload in memory: 100 MB together."""


@dataclass(frozen=True)
class Repository:
    """One repository of one registry: where an image is, or where it goes."""

    client: RegistryClient
    path: str

    def name(self, reference: str | None = None) -> str:
        """host/path, with :tag or @digest, for messages."""
        return self.client.name(self.path, reference)


@dataclass(frozen=True)
class CopyResult:
    """What a copy did. `sent` are bytes that were uploaded; blobs that were there, or could be
    mounted, cost none. `already`: the target had the manifest, and nothing was asked of blobs."""

    digest: str
    sent: int
    total: int
    already: bool


@dataclass(frozen=True)
class RegistryBlob:
    """A blob of a registry as the source of an upload; its digest and size are checked on the way.

    Going on from an offset means reading again from the start: a digest is of the whole.
    """

    repository: Repository
    digest: str
    size: int

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        skip = offset
        client, path = self.repository.client, self.repository.path
        for piece in client.blob_stream(path, self.digest, self.size):
            if skip < len(piece):
                yield piece[skip:]
            skip -= min(skip, len(piece))


def copy_image(
    source: Repository,
    reference: str,
    target: Repository,
    tag: str | None = None,
    *,
    on_event: OnEvent = silent,
    jobs: int = BLOBS_AT_ONCE,
) -> CopyResult:
    """Copy an image (or an index with all its images); its digest stays the same.

    Blobs that the target has are not read; where both are of one registry they are mounted. The
    manifest is put last, so that a tag never names an image that is not whole. `tag` None: the
    manifest is put under its digest. Raises RegistryError's subclasses; a second run goes on from
    the blobs that arrived.
    """
    task = f"copy {source.name(reference)}"
    manifest = source.client.manifest(source.path, reference)
    goal = tag or manifest.digest
    if target.client.head(target.path, goal) == manifest.digest:
        on_event(Event("cached", task, text=f"{target.name(goal)} is there"))
        return CopyResult(manifest.digest, 0, 0, True)
    on_event(Event("start", task))
    try:
        images = _images(source, manifest)
        copied = _copy_blobs(source, target, images, on_event, task, jobs)
        for image in images:
            target.client.put_manifest(target.path, image.digest, image)
        target.client.put_manifest(target.path, goal, manifest)
        stored = target.client.head(target.path, goal)
        if stored != manifest.digest:
            raise ManifestError(
                f"the tag names {stored}, not {manifest.digest}", where=target.name(goal)
            )
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


@dataclass
class _Progress:
    """Bytes of all blobs together; shared by the threads that copy."""

    task: str
    on_event: OnEvent
    total: int
    sent: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}

    def reach(self, digest: str, offset: int) -> None:
        with self._lock:
            self._offsets[digest] = offset
            current = sum(self._offsets.values())
        self.on_event(
            Event("progress", self.task, "blobs", current=current, total=self.total, unit="B")
        )

    def finish(self, digest: str, size: int, *, sent: bool) -> None:
        self.reach(digest, size)
        with self._lock:
            self.sent += size if sent else 0


def _copy_blobs(
    source: Repository,
    target: Repository,
    images: list[Manifest],
    on_event: OnEvent,
    task: str,
    jobs: int,
) -> _Progress:
    blobs: dict[str, int] = {}
    for image in images:
        content = image.json()
        for part in [*content["layers"], content["config"]]:
            blobs[part["digest"]] = part["size"]
    progress = _Progress(task, on_event, sum(blobs.values()))
    same = source.client.host == target.client.host and source.path != target.path
    mount_from = source.path if same else None
    stopped = threading.Event()

    def reach(digest: str, offset: int) -> None:
        if stopped.is_set():
            raise RegistryError("the copy was stopped", where=target.name())
        progress.reach(digest, offset)

    def copy(digest: str, size: int) -> None:
        if stopped.is_set():
            return
        sent = send_blob(
            target.client,
            target.path,
            digest,
            RegistryBlob(source, digest, size),
            size,
            mount_from=mount_from,
            on_bytes=lambda offset: reach(digest, offset),
        )
        progress.finish(digest, size, sent=sent)

    # The largest first: the last to end is then a small one.
    ordered = sorted(blobs.items(), key=lambda item: (-item[1], item[0]))
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = [pool.submit(copy, digest, size) for digest, size in ordered]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()  # after a failure or Ctrl-C no further piece is sent
    for future in sorted(done, key=lambda future: future.exception() is None):
        future.result()  # the failure that stopped the others, and not what they then say
    return progress
