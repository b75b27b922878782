"""What is in a layer's tar and where: the table of contents of a zTOC.

AWS's reader compares each file's entry with the header that it finds before the file, so names
are as written, times whole to the nanosecond, and each header follows the content before it
(awslabs/soci-snapshotter:fs/reader/reader.go, Verify; ztoc/toc_builder.go).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from slipway.core import SlipwayError
from slipway.squashfs import LayerError, skip_content, tar_members

_BLOCK = 512
_WORDS = ["reg", "hardlink", "symlink", "char", "block", "dir", "fifo"]
_KINDS = dict(zip(b"0123456", _WORDS, strict=True))
_GLOBAL = ord("g")
_TYPE_FLAG = 156  # where it stands in a header
_MOST_ID = (1 << 32) - 1


class UnindexableLayerError(SlipwayError):
    """A layer that a zTOC cannot describe: its reader fetches it whole."""


@dataclass(frozen=True)
class TarEntry:
    """One member: where its content is in the plain tar, and what its header says."""

    name: bytes
    kind: str  # a word of ztoc.fbs: reg, dir, symlink, hardlink, char, block, fifo
    offset: int
    size: int
    link: bytes
    mode: int
    uid: int
    gid: int
    time: str  # RFC 3339
    major: int
    minor: int
    xattrs: tuple[tuple[bytes, bytes], ...]


class _PlainTar:
    """Pieces as a stream of exact reads that knows where it is."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.position = 0
        self.header = 0  # where the next member's headers begin
        self._pieces = pieces
        self._rest = memoryview(b"")

    def at_end(self) -> bool:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._rest = memoryview(piece)
        return False

    def _take(self, limit: int) -> memoryview:
        if self.at_end():
            raise LayerError("the layer's archive ends in the middle")
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        self.position += len(piece)
        return piece

    def read(self, size: int) -> bytes:
        first = self.position == self.header
        out = bytearray()
        while len(out) < size:
            out += self._take(size - len(out))
        if first and size == _BLOCK and out[_TYPE_FLAG] == _GLOBAL:
            raise UnindexableLayerError("the layer's archive has a global pax header")
        return bytes(out)

    def skip(self, size: int) -> None:
        while size:
            size -= len(self._take(size))

    def skip_padding(self, size: int) -> None:
        while size and not self.at_end():
            size -= len(self._take(size))

    def drain(self) -> None:
        while not self.at_end():
            self.position += len(self._rest)
            self._rest = memoryview(b"")


def tar_contents(plain: Iterator[bytes]) -> tuple[list[TarEntry], int]:
    """The members of a tar, and its length to the end of its mark of the end. Reads all of it.

    Raises UnindexableLayerError for what a zTOC cannot say, LayerError where it is no archive.
    """
    stream = _PlainTar(plain)
    entries = []
    for member in tar_members(stream):
        if member.segments is not None or member.size != member.stored:
            raise UnindexableLayerError("the layer has a sparse file")
        if not (0 <= member.uid <= _MOST_ID and 0 <= member.gid <= _MOST_ID):
            raise UnindexableLayerError("the layer has an owner beyond 32 bits")
        if member.kind not in _KINDS:
            raise UnindexableLayerError(f"the layer has a member of type {member.kind:c}")
        entries.append(
            TarEntry(
                member.name,
                _KINDS[member.kind],
                stream.position,
                member.size if member.has_content else 0,
                member.link,
                member.mode,
                member.uid,
                member.gid,
                _rfc3339(member.mtime, member.nanoseconds),
                member.major,
                member.minor,
                tuple(sorted(member.xattrs.items())),
            )
        )
        skip_content(stream, member)
        stream.header = stream.position
    end = stream.header + 2 * _BLOCK
    stream.drain()
    return entries, min(end, stream.position)


def _rfc3339(seconds: int, nanoseconds: int) -> str:
    try:
        whole = datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise UnindexableLayerError(f"the layer has a file of the time {seconds}") from error
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{whole.replace(tzinfo=None).isoformat()}{fraction}Z"
