"""The pieces of a linked image's data: those that layers were compiled with, and the rest hashed.

A digest that was made when a layer was compiled still holds, so that what was copied is checked
against what was compiled.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future

from slipway.squashfs import copying
from slipway.squashfs.layout import Copy, Layout
from slipway.squashfs.pieces import Piece, cut


class DataPieces:
    """The pieces from `start` to the end of `layout`: hashing begins at once, in the `background`.

    What has to be hashed is read from where it comes from: so a copy that went wrong differs from
    its digest, and where the file system shares blocks, the sources are in memory and the image is
    not.
    """

    def __init__(self, layout: Layout, start: int, background: Executor) -> None:
        self._copies = layout.copies
        self._found: list[Piece | tuple[int, int, Future[Piece]]] = []
        position = start
        for span in layout.spans:
            self._hash(position, span.start, background)
            self._found.append(span.piece)
            position = span.start + span.piece.size
        self._hash(position, layout.end, background)

    def _hash(self, start: int, end: int, background: Executor) -> None:
        for first, last in cut(start, end):
            task = background.submit(_made, self._copies, first, last)
            self._found.append((first, last, task))

    def finish(self) -> Iterator[Piece]:
        """All pieces in order. What nobody has begun is hashed here.

        Raises CacheError and OSError.
        """
        for found in self._found:
            if isinstance(found, Piece):
                yield found
                continue
            start, end, task = found
            yield _made(self._copies, start, end) if task.cancel() else task.result()


def _made(copies: Sequence[Copy], start: int, end: int) -> Piece:
    """What `copies` make from `start` to `end`."""
    hasher = hashlib.sha256()
    position = start
    at = max(0, bisect_right(copies, start, key=lambda copy: copy.to) - 1)
    while at < len(copies) and copies[at].to < end:
        copy = copies[at]
        first, last = max(copy.to, start), min(copy.to + copy.size, end)
        if first < last:
            # Part of a page in between: see slipway.squashfs.layout.
            hasher.update(bytes(first - position))
            for data in copying.read(copy, first - copy.to, last - first):
                hasher.update(data)
            position = last
        at += 1
    hasher.update(bytes(end - position))
    return Piece(end - start, hasher.hexdigest())
