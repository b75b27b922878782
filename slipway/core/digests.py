"""Content as pieces, each with its sha256: a damaged copy is found, and where it is damaged.

One digest of a whole image would cost one core the whole image after every link, since a squashfs
begins with the positions of its tables. Pieces that layers brought along keep theirs, and any
number of cores can check them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slipway.core.files import file_pieces
from slipway.core.processes import cpu_count

PIECE_BYTES = 8 << 20
"""No piece is larger: some hundreds for an image of 5 GB. What nodes give to each other is a whole
piece, so that its size is what the last node waits for; what a registry keeps is one, too, and ECR
takes 4,200 in a manifest."""

_BUFFER = 1 << 20


@dataclass(frozen=True)
class Piece:
    """So many bytes, and their sha256; a file is its pieces in order."""

    size: int
    sha256: str


class PieceHasher:
    """Pieces of a stream."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._hash = hashlib.sha256()
        self._size = 0

    def update(self, data: bytes) -> None:
        """What comes next in the stream."""
        view = memoryview(data)
        while view:
            part = view[: PIECE_BYTES - self._size]
            self._hash.update(part)
            self._size += len(part)
            view = view[len(part) :]
            if self._size == PIECE_BYTES:
                self._close()

    def finish(self) -> tuple[Piece, ...]:
        """All pieces; the last one may be smaller."""
        if self._size:
            self._close()
        return tuple(self._pieces)

    def _close(self) -> None:
        self._pieces.append(Piece(self._size, self._hash.hexdigest()))
        self._hash = hashlib.sha256()
        self._size = 0


def hash_chunks(data: bytes) -> tuple[Piece, ...]:
    """The pieces of what is in memory."""
    hasher = PieceHasher()
    hasher.update(data)
    return hasher.finish()


def cut_pieces(start: int, end: int) -> list[tuple[int, int]]:
    """Where pieces between two positions begin and end."""
    return [(at, min(at + PIECE_BYTES, end)) for at in range(start, end, PIECE_BYTES)]


def piece_lines(pieces: Sequence[Piece]) -> list[str]:
    """`SIZE SHA256` for each."""
    return [f"{piece.size} {piece.sha256}" for piece in pieces]


def pieces_digest(pieces: Sequence[Piece]) -> str:
    """One digest for all: the sha256 of their lines, each with a line feed at its end."""
    text = "".join(f"{line}\n" for line in piece_lines(pieces))
    return hashlib.sha256(text.encode()).hexdigest()


def differing_pieces(path: Path, pieces: Sequence[Piece]) -> tuple[int, int] | None:
    """Start and end of the first piece that a file does not have as it should; None if it has all.

    Hashes on all cores. Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans, position = [], 0
        for piece in pieces:
            spans.append((position, position + piece.size))
            position += piece.size
        pool = ThreadPoolExecutor(cpu_count())
        try:
            digests = pool.map(lambda span: _hash(handle, *span), spans)
            for piece, span, there in zip(pieces, spans, digests, strict=True):
                if there != piece:
                    return span
        finally:
            pool.shutdown(cancel_futures=True)
        return None if os.fstat(handle).st_size == position else (position, position)
    finally:
        os.close(handle)


def _hash(handle: int, start: int, end: int) -> Piece:
    """From `start` to `end`, or to the end of the file."""
    hasher = hashlib.sha256()
    view = memoryview(bytearray(min(_BUFFER, end - start)))
    position = start
    while position < end:
        count = os.preadv(handle, [view[: end - position]], position)
        if not count:
            break
        hasher.update(view[:count])
        position += count
    return Piece(position - start, hasher.hexdigest())


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    for piece in file_pieces(path):
        digest.update(piece)
    return digest.hexdigest()


_SETTLE_NS = 2_000_000_000
"""A file system's clock may stand still for less: a later change of the file then shows in it."""

_recalled: dict[tuple[int, ...], str] = {}


def recall_sha256(path: Path) -> str:
    """As `sha256_file`, once for a process as long as the file is as it was: by its number, size,
    and when its content and its inode changed. For what several steps of one run check."""
    before = path.stat()
    changed = max(before.st_mtime_ns, before.st_ctime_ns)
    key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    if key in _recalled:
        return _recalled[key]
    digest = sha256_file(path)
    if changed < time.time_ns() - _SETTLE_NS:
        _recalled[key] = digest
    return digest


def tree_files(root: Path) -> list[Path]:
    """Regular files below `root`, sorted by path, without caches and hidden files."""
    files = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            files.append(path)
    return files


def is_executable(path: Path) -> bool:
    """Whether the owner may execute the file."""
    return bool(path.stat().st_mode & stat.S_IXUSR)


def tree_sha256(root: Path) -> str:
    """Hex digest over path, executable bit and content of every file of a tree.

    Only the executable bit counts, as in git: other mode bits depend on the umask of the checkout.
    """
    digest = hashlib.sha256()
    for path in tree_files(root):
        line = f"{path.relative_to(root).as_posix()} {int(is_executable(path))} {sha256_file(path)}"
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
