"""An image's content as pieces with their digests, so that linking need not hash it all again.

A part of a layer was hashed when it was compiled; where an image has it as a whole, that digest
still holds. What is new, or only partly there, is hashed once it is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.squashfs.layout import Span

_BUFFER = 1 << 20


@dataclass(frozen=True)
class Piece:
    """So many bytes, and their sha256; a file is its pieces in order."""

    size: int
    sha256: str


def digest(pieces: Sequence[Piece]) -> str:
    """One digest for all: the sha256 of their lines `SIZE SHA256`."""
    text = "".join(f"{piece.size} {piece.sha256}\n" for piece in pieces)
    return hashlib.sha256(text.encode()).hexdigest()


def pieces_of(handle: int, spans: Sequence[Span], size: int) -> list[Piece]:
    """The pieces of a written image of `size` bytes."""
    pieces, position = [], 0
    for span in spans:
        if span.start > position:
            pieces.append(_hash(handle, position, span.start))
        if span.sha256 is None:
            pieces.append(_hash(handle, span.start, span.end))
        else:
            pieces.append(Piece(span.end - span.start, span.sha256))
        position = span.end
    if size > position:
        pieces.append(_hash(handle, position, size))
    return pieces


def differing(path: Path, pieces: Sequence[Piece]) -> tuple[int, int] | None:
    """Start and end of the first piece that a file does not have as it should; None if it has all.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = 0
        for piece in pieces:
            if _hash(handle, position, position + piece.size) != piece:
                return position, position + piece.size
            position += piece.size
        return None if os.fstat(handle).st_size == position else (position, position)
    finally:
        os.close(handle)


def _hash(handle: int, start: int, end: int) -> Piece:
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
