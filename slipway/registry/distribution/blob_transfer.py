"""Blobs on their way into a repository, several at once: mounted, streamed or read from files."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Event, OnEvent, file_pieces, human_bytes
from slipway.registry.distribution.blob_upload import BlobSource, send_blob
from slipway.registry.distribution.registry_client import RegistryClient
from slipway.registry.errors import ImmutableTagError, ManifestError, RegistryError
from slipway.registry.hosts import parse_ecr_host
from slipway.registry.manifests import Manifest

BLOBS_AT_ONCE = 4
"""Each blob on its way holds about three pieces of an upload in memory: 100 MB together."""

_WORTH_SAYING = 16_000_000  # bytes that were sent, where mounting would have spared them


@dataclass(frozen=True)
class Repository:
    """One repository of one registry: where an image is, or where it goes."""

    client: RegistryClient
    path: str

    def name(self, reference: str | None = None) -> str:
        """host/path, with :tag or @digest, for messages."""
        return self.client.name(self.path, reference)

    def put_tagged(self, tag: str, manifest: Manifest) -> None:
        """Put a manifest whose blobs are there under a tag, and read back what the tag names.

        Raises ImmutableTagError where the tag is another image's, ManifestError where what it names
        then is another one, and RegistryError's other subclasses.
        """
        try:
            self.client.put_manifest(self.path, tag, manifest)
        except ImmutableTagError:
            # An answer that was lost on the way makes the second try meet our own tag; and another
            # push of the same image may have been faster.
            if self.client.head(self.path, tag) != manifest.digest:
                raise
        stored = self.client.head(self.path, tag)
        if stored != manifest.digest:
            raise ManifestError(
                f"the tag names {stored}, not {manifest.digest}", where=self.name(tag)
            )


@dataclass(frozen=True)
class BlobTransfer:
    """One blob, and the repository of the target's own registry that may have it."""

    digest: str
    size: int
    source: BlobSource
    mount_from: str | None = None


@dataclass(frozen=True)
class RegistryBlob:
    """A blob of a registry as the source of an upload; its digest and size are checked on the way.

    Going on from an offset means reading again from the start: a digest is of the whole.
    """

    repository: Repository
    digest: str
    size: int

    def to(self, target: Repository) -> BlobTransfer:
        """Its way into another repository: mounted where both are of one registry."""
        source = self.repository
        same = source.client.host == target.client.host and source.path != target.path
        return BlobTransfer(self.digest, self.size, self, source.path if same else None)

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        skip = offset
        client, path = self.repository.client, self.repository.path
        for piece in client.blob_stream(path, self.digest, self.size):
            if skip < len(piece):
                yield piece[skip:]
            skip -= min(skip, len(piece))


@dataclass(frozen=True)
class FileBlob:
    """A file as the source of an upload."""

    path: Path

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        yield from file_pieces(self.path, offset)


@dataclass(frozen=True)
class MemoryBlob:
    """Bytes as the source of an upload: a document."""

    content: bytes

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        yield self.content[offset:]


@dataclass
class TransferProgress:
    """Bytes of all blobs together; shared by the threads that copy."""

    task: str
    on_event: OnEvent
    total: int = 0
    sent: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}

    def expect(self, size: int) -> None:
        """One more blob is to come."""
        with self._lock:
            self.total += size

    def reach(self, digest: str, offset: int) -> None:
        """One blob has come as far as that."""
        with self._lock:
            self._offsets[digest] = offset
            current = sum(self._offsets.values())
        self.on_event(
            Event("progress", self.task, "blobs", current=current, total=self.total, unit="B")
        )

    def finish(self, digest: str, size: int, *, sent: bool) -> None:
        """One blob is there."""
        self.reach(digest, size)
        with self._lock:
            self.sent += size if sent else 0


class BlobDelivery:
    """Blobs on their way into one repository, several at once; those that it has, or can mount, are
    not read.

    `add` takes a blob from any thread, each digest once, and of those that wait the largest goes
    first: the last to end is then a small one. `finish` waits for all. The first failure stops the
    others. At the end of its block no further piece is sent.
    """

    def __init__(
        self, target: Repository, task: str, on_event: OnEvent, jobs: int = BLOBS_AT_ONCE
    ) -> None:
        self.target = target
        self.progress = TransferProgress(task, on_event)
        self._pool = ThreadPoolExecutor(max_workers=max(1, jobs))
        self._unmounted: Counter[str] = Counter()  # bytes, by the repository that has them, too
        self._waiting: list[tuple[int, str, BlobTransfer]] = []  # a heap, the largest first
        self._futures: dict[str, Future[None]] = {}
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> BlobDelivery:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()  # after a failure or Ctrl-C no further piece is sent
        self._pool.shutdown(cancel_futures=True)

    def add(self, blob: BlobTransfer) -> None:
        """Have one more blob in the target."""
        with self._lock:
            if blob.digest not in self._futures:
                self.progress.expect(blob.size)
                heapq.heappush(self._waiting, (-blob.size, blob.digest, blob))
                self._futures[blob.digest] = self._pool.submit(self._send_largest)

    def finish(self) -> TransferProgress:
        """Wait for all that was added. Raises RegistryError's subclasses."""
        futures = list(self._futures.values())
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        # The failure that stopped the others, and not what they then say.
        for future in sorted(done, key=lambda future: future.exception() is None):
            if future.exception() is not None:
                self._stopped.set()
            future.result()
        for repository, size in sorted(self._unmounted.items()):
            if size >= _WORTH_SAYING:
                self.target.client.tell("mount", unmounted_notice(self.target, repository, size))
        return self.progress

    def _send_largest(self) -> None:
        with self._lock:
            _, _, blob = heapq.heappop(self._waiting)
        if not self._stopped.is_set():
            self._send(blob)

    def _send(self, blob: BlobTransfer) -> None:
        target = self.target
        sent = send_blob(
            target.client,
            target.path,
            blob.digest,
            blob.source,
            blob.size,
            mount_from=blob.mount_from,
            on_bytes=lambda offset: self._reach(blob, offset),
        )
        self.progress.finish(blob.digest, blob.size, sent=sent)
        if sent and blob.mount_from:
            with self._lock:
                self._unmounted[blob.mount_from] += blob.size

    def _reach(self, blob: BlobTransfer, offset: int) -> None:
        # What has all of its bytes there is closed: the next run need not send them again.
        if self._stopped.is_set() and offset < blob.size:
            raise RegistryError("the transfer was stopped", where=self.target.name())
        self.progress.reach(blob.digest, offset)


def unmounted_notice(target: Repository, repository: str, size: int) -> str:
    """What to say of `size` bytes that were sent into `target`, while another repository of its
    registry has them.

    ECR mounts where an account has that switched on, which is not so at first, and within the
    limits that the ECR user guide states ("Blob mounting in Amazon ECR").
    """
    what = f"{human_bytes(size)} that {repository} has were sent again, as they were not mounted"
    ecr = parse_ecr_host(target.client.host)
    if ecr is None:
        return what
    return (
        f"{what}. ECR mounts layers of one repository into another where both have the same "
        "encryption, neither is a pull-through cache's, and the account has it switched on: "
        f"`aws ecr put-account-setting --name BLOB_MOUNTING --value ENABLED --region {ecr.region}`"
    )


def deliver_blobs(
    target: Repository,
    blobs: Iterable[BlobTransfer],
    task: str,
    on_event: OnEvent,
    jobs: int = BLOBS_AT_ONCE,
) -> TransferProgress:
    """Have all blobs in the target. Raises RegistryError's subclasses."""
    with BlobDelivery(target, task, on_event, jobs) as delivery:
        for blob in blobs:
            delivery.add(blob)
        return delivery.finish()
