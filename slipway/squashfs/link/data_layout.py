"""Where the data of the linked image comes from and goes to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from slipway.core import Piece
from slipway.squashfs.compile import CompiledLayer, DataPart
from slipway.squashfs.format import DATA_STORED, NO_FRAGMENT, PAD
from slipway.squashfs.link.duplicate_files import FileExtent, find_duplicates
from slipway.squashfs.link.merged_tree import MergedTree


@dataclass(frozen=True)
class DataCopy:
    """Bytes to be copied as they are."""

    source: Path | bytes
    start: int
    size: int
    to: int  # position in the image


@dataclass(frozen=True)
class CopySpan:
    """Where in the image a piece of a part is, which is there as a whole."""

    start: int
    piece: Piece


@dataclass
class DataLayout:
    """Copies in the order of the image, and where each layer's files are after them."""

    copies: list[DataCopy]
    spans: list[CopySpan]
    starts: list[list[int]]  # for each layer, for each row: position of the first data block
    fragments: list[list[int]]  # for each layer, by its own number + 1: number in the image
    table: list[tuple[int, int]]  # fragments of the image: position, size word
    end: int


def arrange_data(merged: MergedTree, position: int) -> DataLayout:
    """Place the live data from `position` on; what is there twice, once. Raises OSError.

    A run of data keeps its position modulo the size of a page, so that file systems which share
    blocks between files (reflinks) need not copy; what is dead in between is left out but for the
    part of a page that this needs, which reads as zeros.
    """
    layout = DataLayout([], [], [], [], [], position)
    same = find_duplicates(merged)
    moved: list[_Moved] = []
    for number, (layer, live) in enumerate(zip(merged.layers, merged.live, strict=True)):
        twice = {(at.part, at.start): first for at, first in same.items() if at.layer == number}
        _arrange(layer, live, layout, twice, moved)
    return layout


_Moved = list[dict[int, int]]
"""For each part: old position -> new position."""


def _arrange(
    layer: CompiledLayer,
    live: bytearray,
    layout: DataLayout,
    twice: Mapping[tuple[int, int], FileExtent],
    all_moved: list[_Moved],
) -> None:
    """Place what lives of a layer. What `twice` names is placed already, or will be in it."""
    columns = layer.columns
    # A fragment is live if a live file's tail is in it.
    used = set(compress(columns["fragment"], live))
    used.discard(0)
    pieces: list[set[tuple[int, int]]] = [set() for _ in layer.parts]
    stored = columns["stored"]
    for part, start, size, alive in zip(
        columns["part"], columns["start"], stored, live, strict=True
    ):
        if size and alive and (part, start) not in twice:
            pieces[part].add((start, size))
    for number in used:
        part = columns["fragment_part"][number - 1]
        size = columns["fragment_word"][number - 1] & ~DATA_STORED
        pieces[part].add((columns["fragment_start"][number - 1], size))

    moved: _Moved = []
    all_moved.append(moved)
    for part_pieces, source in zip(pieces, layer.parts, strict=True):
        before = len(layout.copies)
        moved.append(_place(sorted(part_pieces), source.source, layout))
        layout.spans += _whole(source, layout.copies[before:])
    for (part, start), first in twice.items():
        moved[part][start] = all_moved[first.layer][first.part][first.start]
    layout.starts.append(
        [
            moved[part].get(start, 0) if size else 0
            for part, start, size in zip(columns["part"], columns["start"], stored, strict=True)
        ]
    )
    numbers = [NO_FRAGMENT] * (len(columns["fragment_part"]) + 1)
    for number in sorted(used):
        part = columns["fragment_part"][number - 1]
        start = moved[part][columns["fragment_start"][number - 1]]
        numbers[number] = len(layout.table)
        layout.table.append((start, columns["fragment_word"][number - 1]))
    layout.fragments.append(numbers)


def _place(
    pieces: list[tuple[int, int]], source: Path | bytes, layout: DataLayout
) -> dict[int, int]:
    """Add copies for the live pieces of a part; old position -> new position."""
    moved: dict[int, int] = {}
    first = end = to = 0
    for start, size in pieces:
        if not moved or start > end:
            if moved:
                _close(layout, source, first, end, to)
            first = end = start
            to = layout.end + (start - layout.end) % PAD
        moved[start] = to + start - first
        end = max(end, start + size)
    if moved:
        _close(layout, source, first, end, to)
    return moved


def _whole(part: DataPart, copies: Sequence[DataCopy]) -> Iterator[CopySpan]:
    """The pieces of a part that one of its `copies` has all of."""
    starts = [copy.start for copy in copies]
    first = 0
    for piece in part.pieces:
        at = bisect_right(starts, first) - 1
        if at >= 0 and first + piece.size <= copies[at].start + copies[at].size:
            yield CopySpan(copies[at].to + first - copies[at].start, piece)
        first += piece.size


def _close(layout: DataLayout, source: Path | bytes, first: int, end: int, to: int) -> None:
    layout.copies.append(DataCopy(source, first, end - first, to))
    layout.end = to + end - first
