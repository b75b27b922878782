"""What a start reads of an image: its files among the merged rows, and where their data is.

A start's files are given by path, in the order in which they are touched. Paths that the image
does not have are passed over: a list that was made with one image serves others, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from slipway.squashfs.compile import CompiledLayer
from slipway.squashfs.format import DATA_STORED, DIR, REG, HotFile
from slipway.squashfs.link.data_layout import DataLayout
from slipway.squashfs.link.path_lookup import Row, find_child, look_up_path

_GAP = 128 << 10
"""Bytes between two hot ranges that are read along with them: one more request costs more."""

_RUN = 4 << 20
"""Longest hot range: several are read at a time."""


def find_hot_rows(
    layers: Sequence[CompiledLayer], files: Sequence[HotFile]
) -> list[tuple[Row, HotFile]]:
    """The rows of `files`, those that are regular files of the image, each once, in order."""
    folders = {b"": look_up_path(layers, len(layers), ())}

    def folder_rows(path: bytes) -> list[Row]:
        rows = folders.get(path)
        if rows is None:
            above, _, name = path.rpartition(b"/")
            parents = folder_rows(above)
            matches = find_child(layers, parents, name) if parents and name else parents
            rows = folders[path] = [row for row in matches if _kind(layers, row) == DIR]
        return rows

    def find(path: bytes) -> Row | None:
        folder, _, name = path.rpartition(b"/")
        above = folder_rows(folder)
        matches = find_child(layers, above, name) if above else []
        return matches[0] if len(matches) == 1 and _kind(layers, matches[0]) == REG else None

    rows: dict[Row, HotFile] = {}
    for file in files:
        if (row := find(file.path)) is not None:
            rows.setdefault(row, file)
        elif file.instead and (row := find(file.instead)) is not None:
            rows.setdefault(row, HotFile(file.instead))
    return list(rows.items())


def _kind(layers: Sequence[CompiledLayer], row: Row) -> int:
    return layers[row[0]].columns["kind"][row[1]]


def hot_ranges(
    layers: Sequence[CompiledLayer],
    layout: DataLayout,
    rows: Sequence[tuple[Row, HotFile]],
    block_size: int,
    size: int,
) -> tuple[tuple[int, int], ...]:
    """The (start, end) of the image's bytes that a start reads, in order, none of them long.

    The tables are among them, whole: `size` is the image's. Every name that is looked up is there.
    """
    ranges = [(0, layout.copies[0].to if layout.copies else 1), (layout.end, size)]
    for (layer, row), file in rows:
        columns = layers[layer].columns
        if fragment := columns["fragment"][row]:
            start, word = layout.table[layout.fragments[layer][fragment]]
            ranges.append((start, start + (word & ~DATA_STORED)))
        if columns["words"][row]:
            first = columns["word"][row]
            words = columns["block_words"][first : first + columns["words"][row]]
            ranges += _blocks(layout.starts[layer][row], words, file, block_size)
    return _runs(ranges)


def _blocks(
    start: int, words: Sequence[int], file: HotFile, block_size: int
) -> list[tuple[int, int]]:
    """Where the blocks of a file are that its ranges touch."""
    touched = bytearray(len(words))
    for first, end in file.ranges or ((0, len(words) * block_size),):
        low, high = first // block_size, min(-(-end // block_size), len(words))
        touched[low:high] = b"\1" * max(0, high - low)
    ranges = []
    for word, is_hot in zip(words, touched, strict=True):
        size = word & ~DATA_STORED
        if is_hot and size:
            ranges.append((start, start + size))
        start += size
    return ranges


def _runs(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges, sorted, joined where they are near to each other, and cut where they are long."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start - joined[-1][1] <= _GAP:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return tuple(
        (at, min(at + _RUN, end)) for start, end in joined for at in range(start, end, _RUN)
    )
