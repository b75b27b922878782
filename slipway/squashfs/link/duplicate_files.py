"""Large files with the same content, in one layer or in several: an image stores them once.

The same library in two layers is common (a package that a later layer updates, or brings along
once more). Compiling sees one part at a time, linking sees all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slipway.squashfs.compile import CompiledLayer
from slipway.squashfs.format import PAD
from slipway.squashfs.link.merged_tree import MergedTree

_WORTH = 2 * PAD
"""Stored bytes below which leaving a file out costs more than it saves."""

_END = 16 << 10

_BUFFER = 1 << 20


class FileExtent(NamedTuple):
    """Where a file's data blocks begin in the compiled layers."""

    layer: int
    part: int
    start: int


def find_duplicates(merged: MergedTree) -> dict[FileExtent, FileExtent]:
    """Live data that need not be stored -> the same bytes before it, in the image's order.

    Files with blocks of the same sizes are compared as stored: the same compressor makes the same
    of the same. First by their ends, then by all of it, and each is read once: thousands of files
    that nothing compresses, as shards of a data set are, have blocks of the same sizes. Raises
    OSError.
    """
    alike: dict[tuple[int, bytes], dict[FileExtent, None]] = {}  # a hard link is there once
    for number, (layer, live) in enumerate(zip(merged.layers, merged.live, strict=True)):
        words = layer.columns["block_words"]
        for extent, stored, word, count in _large(number, layer, live):
            alike.setdefault((stored, words[word : word + count].tobytes()), {})[extent] = None
    duplicates: dict[FileExtent, FileExtent] = {}
    for (size, _), extents in alike.items():
        ends = ((0, min(size, _END)), (max(0, size - _END), size))
        for candidates in _groups(merged, list(extents), ends):
            for first, *others in _groups(merged, candidates, ((0, size),)):
                duplicates |= dict.fromkeys(others, first)
    return duplicates


def _groups(
    merged: MergedTree, extents: list[FileExtent], spans: Sequence[tuple[int, int]]
) -> list[list[FileExtent]]:
    """Those that have company with the same bytes at `spans`, in the order in which they are."""
    if len(extents) == 1:
        return []
    groups: dict[bytes, list[FileExtent]] = {}
    for extent in extents:
        groups.setdefault(_digest(merged, extent, spans), []).append(extent)
    return [group for group in groups.values() if len(group) > 1]


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


def _digest(merged: MergedTree, extent: FileExtent, spans: Sequence[tuple[int, int]]) -> bytes:
    hasher = hashlib.sha256()
    with _opened(merged, extent) as data:
        for start, end in spans:
            for position in range(start, end, _BUFFER):
                hasher.update(data(position, min(_BUFFER, end - position)))
    return hasher.digest()


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
