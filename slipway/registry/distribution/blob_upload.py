"""Uploading a blob so that a cut costs one piece and not the whole: resume by upload offset.

OCI distribution specification, "Pushing a blob in chunks" and "Mounting a blob from another
repository". ECR does otherwise: it answers a piece with 201 in place of 202 (openai/tart#273,
jdx/mise#11376), the offset that it tells stays at the end of the first piece
(aws/containers-roadmap#2831), and it knows no GET of a session (dotnet/sdk#33019). Where a registry
answers like that, the offset is what it has acknowledged; of a piece whose answer was lost, its
refusal says where it goes on (apple/containerization#790).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import requests

from slipway.registry.distribution.http_boundary import http_failure
from slipway.registry.distribution.registry_client import RegistryClient
from slipway.registry.distribution.retry import retry_after
from slipway.registry.distribution.transport import RETRIED
from slipway.registry.distribution.upload_records import UploadRecord, upload_record
from slipway.registry.errors import (
    SERVER_TROUBLE,
    NoCredentialsError,
    NotAuthorisedError,
    RegistryError,
    ServerFaultError,
    refusal_error,
    registry_reply,
    unavailable_error,
)
from slipway.registry.hosts import parse_ecr_host

PIECE = 8 << 20
"""Bytes in one request at most, but for blobs of more than 32 GB: what a running upload holds in
memory (ECR takes parts of at most 20 MiB)."""

_LEAST_PIECE = 1 << 20
_LEAST_ECR_PIECE = 5 << 20  # ECR takes a smaller part only as the last one
_LARGEST_PIECE = 64 << 20  # where a registry asks for larger ones
_MOST_PIECES = 4000  # ECR takes 4,200 parts of a layer (its service quotas)
_ECR_OFFSET = re.compile(r"First byte of the layer part is \d{1,18} instead of (\d{1,18})\b")


def piece_size(size: int, host: str) -> int:
    """Bytes in one request for a blob of `size`: what a request that is refused or cut costs.

    Registries refuse after the body (429, 503, a token that has ended), and ECR and proxies that
    hold a request back keep nothing of one that was cut. So it is 4 % of the blob; but not so small
    that the round trips would tell.
    """
    least = _LEAST_ECR_PIECE if parse_ecr_host(host) else _LEAST_PIECE
    return min(max(size // 25, least), max(PIECE, -(-size // _MOST_PIECES)))


class BlobSource(Protocol):
    """Where the bytes of a blob come from: a file, or another registry."""

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on. Asked with 0, and with offsets that were reached."""


class FileSource:
    """A seekable file as the source of a blob."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def open(self, offset: int) -> Iterator[bytes]:
        """The content from an offset on."""
        self._stream.seek(offset)
        left = self._size - offset
        while left and (piece := self._stream.read(min(1 << 20, left))):
            left -= len(piece)
            yield piece


def upload_blob(
    registry: RegistryClient,
    repository: str,
    digest: str,
    source: BinaryIO,
    size: int,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put `size` bytes of a seekable file into a repository. False: it was there already."""
    return send_blob(
        registry, repository, digest, FileSource(source, size), size, on_bytes=on_bytes
    )


def send_blob(
    registry: RegistryClient,
    repository: str,
    digest: str,
    source: BlobSource,
    size: int,
    *,
    mount_from: str | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put a blob of `size` bytes into a repository. False: nothing was sent.

    That is where the repository has it, or could mount it from the repository `mount_from` of the
    same registry. After a reset the registry is asked how much it has, and the upload goes on from
    there; so does one that an earlier run has left, where the client has a folder for `uploads`.
    `on_bytes` hears the offset. Content that the registry finds damaged is sent once again. Raises
    RegistryError's subclasses.
    """
    if _has_blob(registry, repository, digest):
        return False
    piece = piece_size(size, registry.host)
    # A blob of one piece is not worth a record.
    folder = registry.uploads if size > piece else None
    with upload_record(folder, registry.name(repository, digest)) as record:
        upload = _Upload(registry, repository, digest, record, piece)
        return _send(upload, source, size, mount_from, on_bytes)


def _has_blob(registry: RegistryClient, repository: str, digest: str) -> bool:
    """Whether the repository has a blob: not where the registry fails to say it.

    Distribution before 3.0 that is killed while it links a blob to a repository has an empty link
    then, and answers 500 to whoever asks, until the blob is put again.
    """
    try:
        return registry.has_blob(repository, digest)
    except ServerFaultError as fault:
        name = registry.name(repository, digest)
        registry.tell("heal", f"{name}: {fault.what}; it is sent anew")
        return False


def _send(
    upload: _Upload,
    source: BlobSource,
    size: int,
    mount_from: str | None,
    on_bytes: Callable[[int], None],
) -> bool:
    """The upload of a blob that the repository does not have. False: it was mounted."""
    registry, repository, digest = upload.registry, upload.repository, upload.digest
    offset = upload.resume(size)
    if offset is None:
        if not upload.begin(mount_from):
            return False
        if size <= upload.piece:
            if upload.send_whole(source) or _has_blob(registry, repository, digest):
                on_bytes(size)
                return True
            upload.begin()
    damages = losses = 0
    while True:
        upload.send(source, size, on_bytes, offset or 0)
        response = upload.finish()
        if response.status_code == 201 or _has_blob(registry, repository, digest):
            upload.record.forget()
            return True
        lost, damaged = _is_session_lost(response), _is_damaged(response)
        losses, damages = losses + lost, damages + damaged
        if losses >= registry.attempts or damages >= 2 or not (lost or damaged):
            where = registry.name(repository, digest)
            raise refusal_error(response.status_code, response.content, where=where)
        upload.begin()
        offset = 0


def _is_damaged(response: requests.Response) -> bool:
    return registry_reply(response.content).code == "DIGEST_INVALID"


def _is_session_lost(response: requests.Response) -> bool:
    """Whether the registry knows no more of what was sent, or has more or less of it than we think.

    Distribution calls a session that was cut "invalid", with the status of one that it lost.
    """
    code = registry_reply(response.content).code
    return response.status_code == 416 or code in ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")


@dataclass(frozen=True)
class _Trouble:
    """Why a request with content was in vain, and the seconds that the registry asks us to wait.

    `refusal`: its answer, where there was one.
    """

    failure: RegistryError
    asked: float | None = None
    refusal: requests.Response | None = None

    def next_offset(self, acknowledged: int, sent: int) -> int | None:
        """Where a session goes on whose registry tells no offset; None where it is lost."""
        if self.refusal is None or self.refusal.status_code in RETRIED:
            return acknowledged
        told = _ECR_OFFSET.search(registry_reply(self.refusal.content).message)
        offset = int(told[1]) if told else 0
        return offset if acknowledged < offset <= sent else None


class _Upload:
    """One upload session: the location that the registry gave last.

    `piece` is the most bytes of one request. An offset is told until a registry answers as ECR.
    """

    def __init__(
        self,
        registry: RegistryClient,
        repository: str,
        digest: str,
        record: UploadRecord,
        piece: int,
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.digest = digest
        self.record = record
        self._location = ""
        self._tells_offset = True
        self.piece = piece

    def resume(self, size: int) -> int | None:
        """Take up the session that an earlier run has left: how much the registry has of it.

        None where there is none, or where the registry knows it no more.
        """
        session = self.record.session()
        if session is None:
            return None
        self._location, offset = session
        if offset is not None:
            self._tells_offset = False
        else:
            with contextlib.suppress(RegistryError):  # whether it answers at all, `begin` will tell
                offset = self._received(size)
        if offset is None or offset > size:
            self.record.forget()
            return None
        return offset

    def begin(self, mount_from: str | None = None) -> bool:
        """Open a session. False: the blob was mounted, and there is nothing to send.

        A registry that does not mount (ECR with the feature off, or a blob that the other
        repository does not have) opens a session in its place.
        """
        response = self._mount(mount_from) if mount_from else None
        if response is None or response.status_code not in (201, 202):
            response = self._request("POST", "blobs/uploads/")
        if response.status_code == 201:
            return not _has_blob(self.registry, self.repository, self.digest) and self.begin()
        if response.status_code != 202:
            where = self.registry.name(self.repository)
            raise refusal_error(response.status_code, response.content, where=where)
        self._location = self.registry.location(response, self.repository)
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        if least.isascii() and least.isdigit() and len(least) < 12:
            self.piece = min(max(self.piece, int(least)), _LARGEST_PIECE)
        # From here on: Distribution 3 keeps what came of a first piece that a kill cuts, too.
        self.record.keep(self._location)
        return True

    def _mount(self, repository: str) -> requests.Response | None:
        """The answer to an attempt to mount; None where we may not read the other repository."""
        params = {"mount": self.digest, "from": repository}
        try:
            return self._request("POST", "blobs/uploads/", params, also_from=repository)
        except (NoCredentialsError, NotAuthorisedError):
            return None

    def send_whole(self, source: BlobSource) -> bool:
        """Send a blob of one piece with the request that closes the session: one way to the
        registry and back less (OCI distribution specification, "POST then PUT").

        One try. False: whatever became of it, the session is of no use any more.
        """
        answer = self._try("PUT", b"".join(source.open(0)), params={"digest": self.digest})
        if isinstance(answer, _Trouble):
            self.registry.pause(1, answer.asked, answer.failure)
            return False
        return answer.status_code == 201

    def send(
        self, source: BlobSource, size: int, on_bytes: Callable[[int], None], offset: int
    ) -> None:
        """All bytes from an offset on, into the session that is open.

        Only the piece in flight is held: where the registry has lost more than that, the source is
        opened anew.
        """
        pieces = self._pieces(source, offset)
        piece, start, failures, restarts = b"", offset, 0, 0
        while offset < size:
            if offset >= start + len(piece):
                start, piece = start + len(piece), next(pieces, b"")
                if not piece:
                    raise RegistryError(
                        f"the source of the blob ends after {offset} of {size} bytes",
                        where=self.registry.name(self.repository, self.digest),
                    )
            trouble = self._piece(piece[offset - start :], offset)
            if trouble is None:
                offset = start + len(piece)
                self.record.keep(self._location, None if self._tells_offset else offset)
                failures = 0
            else:
                failures += 1
                # Each restart may get some pieces through: counted apart, it has an end as well.
                if max(failures, restarts) >= self.registry.attempts:
                    raise trouble.failure
                self.registry.pause(failures, trouble.asked, trouble.failure)
                before, offset = offset, self._offset(trouble, offset, start + len(piece))
                if offset < start:
                    pieces = self._pieces(source, offset)
                    piece, start, restarts = b"", offset, restarts + 1
                failures = 0 if offset > before else failures
            on_bytes(offset)

    def finish(self) -> requests.Response:
        """Close the session under the digest."""
        return self._request("PUT", self._location, params={"digest": self.digest})

    def _pieces(self, source: BlobSource, offset: int) -> Iterator[bytes]:
        """The content from an offset on, in pieces for one request each."""
        held = bytearray()
        for part in source.open(offset):
            held += part
            while len(held) >= self.piece:
                yield bytes(held[: self.piece])
                del held[: self.piece]
        if held:
            yield bytes(held)

    def _piece(self, piece: bytes, offset: int) -> _Trouble | None:
        """Send one piece. None when the registry has all of it."""
        span = f"{offset}-{offset + len(piece) - 1}"
        answer = self._try("PATCH", piece, headers={"Content-Range": span})
        if isinstance(answer, _Trouble):
            return answer
        if answer.status_code in (201, 202, 204):
            self._tells_offset = self._tells_offset and answer.status_code != 201
            self._follow(answer)
            return None
        where = self.registry.name(self.repository, self.digest)
        raise refusal_error(answer.status_code, answer.content, where=where)

    def _try(
        self,
        method: str,
        content: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response | _Trouble:
        """The answer to a request with content; a trouble where a later one may succeed."""
        where = self.registry.name(self.repository, self.digest)
        try:
            response = self.registry.request(
                method,
                self.repository,
                self._location,
                access="pull,push",
                headers={"Content-Type": "application/octet-stream", **(headers or {})},
                params=params,
                body=lambda: content,
                patient=False,
            )
        except requests.exceptions.RequestException as error:
            return _Trouble(http_failure(error, where, self._location))
        status = response.status_code
        if status in RETRIED or status == 404 or _is_session_lost(response):
            reason = registry_reply(response.content).message or response.reason or ""
            failure = unavailable_error(where, f"{status} {reason}", SERVER_TROUBLE)
            return _Trouble(failure, retry_after(response.headers.get("Retry-After")), response)
        return response

    def _offset(self, trouble: _Trouble, acknowledged: int, sent: int) -> int:
        """How much the registry has, in the session or, where that is lost, in a new one.

        `sent`: nobody can have more than that.
        """
        if self._tells_offset:
            offset = self._received(sent)
        else:
            offset = trouble.next_offset(acknowledged, sent)
        if offset is None:
            self.begin()
        return offset or 0

    def _received(self, sent: int) -> int | None:
        """How much the registry has in the session; None where that is lost."""
        response = self._request("GET", self._location)
        received = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", response.headers.get("Range", ""))
        # "0-0" is said of one byte and of none (distribution/distribution#2363), and Distribution
        # 2.8 drops a session whose piece arrived in part (distribution/distribution#3755).
        if response.status_code != 204 or not received or not 0 < int(received[1]) < sent:
            return None
        self._follow(response)
        return int(received[1]) + 1

    def _follow(self, response: requests.Response) -> None:
        if "Location" in response.headers:
            self._location = self.registry.location(response, self.repository, self._location)

    def _request(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        also_from: str | None = None,
    ) -> requests.Response:
        return self.registry.request(
            method, self.repository, path, access="pull,push", params=params, also_from=also_from
        )
