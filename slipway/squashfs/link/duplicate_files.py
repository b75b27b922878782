"""Large files with the same content, in one layer or in several: an image stores them once.

The same library in two layers is common (a package that a later layer updates, or brings along
once more). Compiling sees one part at a time, linking sees all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slipway.squashfs.compile import CompiledLayer
from slipway.squashfs.format import PAD
from slipway.squashfs.link.merged_tree import MergedTree

_WORTH = 2 * PAD
"""Stored bytes below which leaving a file out costs more than it saves."""

_BUFFER = 1 << 20


class FileExtent(NamedTuple):
    """Where a file's data blocks begin in the compiled layers."""

    layer: int
    part: int
    start: int


def find_duplicates(merged: MergedTree) -> dict[FileExtent, FileExtent]:
    """Live data that need not be stored -> the same bytes before it, in the image's order.

    Files with blocks of the same sizes are compared byte by byte as stored: the same compressor
    makes the same of the same. Raises OSError.
    """
    duplicates: dict[FileExtent, FileExtent] = {}
    first: dict[tuple[int, bytes], list[FileExtent]] = {}
    for number, (layer, live) in enumerate(zip(merged.layers, merged.live, strict=True)):
        words = layer.columns["block_words"]
        for extent, stored, word, count in _large(number, layer, live):
            alike = first.setdefault((stored, words[word : word + count].tobytes()), [])
            if extent in alike or extent in duplicates:
                continue  # a hard link
            for other in alike:
                if _same(merged, other, extent, stored):
                    duplicates[extent] = other
                    break
            else:
                alike.append(extent)
    return duplicates


def _large(
    number: int, layer: CompiledLayer, live: bytearray
) -> Iterator[tuple[FileExtent, int, int, int]]:
    """Place, stored bytes, and the place and count of the block sizes, in the order of places."""
    columns = layer.columns
    rows = [
        (FileExtent(number, columns["part"][row], columns["start"][row]), stored, row)
        for row, stored in enumerate(columns["stored"])
        if stored >= _WORTH and live[row]
    ]
    for extent, stored, row in sorted(rows):
        yield extent, stored, columns["word"][row], columns["words"][row]


def _same(merged: MergedTree, one: FileExtent, other: FileExtent, size: int) -> bool:
    with _opened(merged, one) as first, _opened(merged, other) as second:
        for position in range(0, size, _BUFFER):
            count = min(_BUFFER, size - position)
            if first(position, count) != second(position, count):
                return False
    return True


class _Data:
    """Bytes of a part, from a place on."""

    def __init__(self, source: bytes | int, start: int) -> None:
        self._source = source
        self._start = start

    def __call__(self, position: int, size: int) -> bytes:
        at = self._start + position
        if isinstance(self._source, int):
            return os.pread(self._source, size, at)
        return self._source[at : at + size]


@contextmanager
def _opened(merged: MergedTree, extent: FileExtent) -> Iterator[_Data]:
    source = merged.layers[extent.layer].parts[extent.part].source
    if not isinstance(source, Path):
        yield _Data(source, extent.start)
        return
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _Data(handle, extent.start)
    finally:
        os.close(handle)
