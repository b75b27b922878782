"""An image's content as pieces with their digests: a damaged copy is found, and where it is.

A part of a layer was hashed when it was compiled; where an image has it as a whole, that digest
still holds, so that what was copied is checked against what was compiled. What is new, or only
partly there, is hashed once it is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slipway.squashfs.layout import Span

_BUFFER = 1 << 20


class Hasher(Protocol):
    """What hashlib makes."""

    def update(self, data: memoryview, /) -> None:
        """Take in some bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


@dataclass(frozen=True)
class Piece:
    """So many bytes, and their sha256; a file is its pieces in order."""

    size: int
    sha256: str


def digest(pieces: Sequence[Piece]) -> str:
    """One digest for all: the sha256 of their lines `SIZE SHA256`."""
    text = "".join(f"{piece.size} {piece.sha256}\n" for piece in pieces)
    return hashlib.sha256(text.encode()).hexdigest()


def read_back(
    handle: int, spans: Sequence[Span], size: int, wait: Callable[[int], None]
) -> tuple[list[Piece], str]:
    """The pieces of an image of `size` bytes, and the sha256 of all of it.

    `wait(n)` returns when the first n bytes are written: hashing goes on beside the copy.
    """
    whole = hashlib.sha256()
    pieces, position = [], 0

    def add(end: int, sha256: str | None) -> None:
        nonlocal position
        hashers = [whole] if sha256 else [whole, hashlib.sha256()]
        count = _feed(handle, position, end, hashers, wait)
        pieces.append(Piece(count, sha256 or hashers[1].hexdigest()))
        position = end

    for span in spans:
        if span.start > position:
            add(span.start, None)
        add(span.end, span.sha256)
    if size > position:
        add(size, None)
    return pieces, whole.hexdigest()


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
    count = _feed(handle, start, end, [hasher], lambda _: None)
    return Piece(count, hasher.hexdigest())


def _feed(
    handle: int, start: int, end: int, hashers: Sequence[Hasher], wait: Callable[[int], None]
) -> int:
    """Hash from `start` to `end`, or to the end of the file; how many bytes that were."""
    view = memoryview(bytearray(min(_BUFFER, end - start)))
    position = start
    while position < end:
        wait(min(position + _BUFFER, end))
        count = os.preadv(handle, [view[: end - position]], position)
        if not count:
            break
        for hasher in hashers:
            hasher.update(view[:count])
        position += count
    return position - start
