"""Inode numbers, and which files have several names.

Numbers are given on the way down, so that the names of a directory are neighbours: a listing
stores them as small differences.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress, repeat

from slipway.squashfs.link.merged_tree import MergedDirectory, MergedTree
from slipway.squashfs.link.path_lookup import Row


@dataclass
class HardLinks:
    """A file with several names. `number` and `reference` come when it is met first."""

    names: int = 0
    number: int = 0
    reference: int = -1


@dataclass(frozen=True)
class NumberedInodes:
    """How many inodes and paths below the root there are.

    A directory's names have the numbers from its `first` on, except for those in `special`, which
    have names of shared files among them.
    """

    inodes: int
    entries: int
    special: dict[MergedDirectory, list[int]]


def find_hard_links(merged: MergedTree) -> dict[tuple[int, int], HardLinks]:
    """Files with more than one name in the image, by layer and ~group or row."""
    counts: dict[tuple[int, int], HardLinks] = {}
    for layer, live in enumerate(merged.live):
        groups = merged.layers[layer].columns["group"]
        if any(groups):
            for group in compress(groups, live):
                if group:
                    counts.setdefault((layer, ~group), HardLinks()).names += 1
    if merged.linked:
        _count_linked(merged, counts)
    return {key: shared for key, shared in counts.items() if shared.names > 1}


def _count_linked(merged: MergedTree, counts: dict[tuple[int, int], HardLinks]) -> None:
    """Links across layers: a row may have more names than one, so count those."""
    linked = {_key(merged, *row) for row in merged.linked}
    for key in linked:
        counts[key] = HardLinks()
    for here in merged.dirs:
        for layer, row in _rows(here):
            key = _key(merged, layer, row)
            if key in linked:
                counts[key].names += 1


def _key(merged: MergedTree, layer: int, row: int) -> tuple[int, int]:
    group = merged.layers[layer].columns["group"][row]
    return (layer, ~group) if group else (layer, row)


def _rows(here: MergedDirectory) -> Iterable[Row]:
    if here.span is not None:
        layer, first, end = here.span
        return zip(repeat(layer), range(first, end))
    return ((layer, row) for _, layer, row in here.items or ())


def _rows_shared(
    merged: MergedTree, layer: int, shared: dict[tuple[int, int], HardLinks]
) -> list[int]:
    groups = merged.layers[layer].columns["group"]
    return [row for row, group in enumerate(groups) if (layer, ~group if group else row) in shared]


def number_inodes(merged: MergedTree, shared: dict[tuple[int, int], HardLinks]) -> NumberedInodes:
    """Give every directory its number and its names' first; the root is 1."""
    following, entries = 2, 0
    special: dict[MergedDirectory, list[int]] = {}
    merged.dirs[0].number = 1
    with_shared = {layer for layer, _ in shared}
    rows_shared = {layer: _rows_shared(merged, layer, shared) for layer in with_shared}
    for here in merged.dirs:
        here.first = following
        if here.span is not None:
            layer, first, end = here.span
            size = end - first
            rows = rows_shared.get(layer, [])
            neighbours = bisect_left(rows, first) == bisect_left(rows, end)
        else:
            size = len(here.items or ())
            neighbours = with_shared.isdisjoint({layer for _, layer, _ in here.items or ()})
        entries += size
        if neighbours:
            for at, child in here.dirs.items():
                child.number = following + at
            following += size
            continue
        numbers = []
        for layer, row in _rows(here):
            found = shared.get(_key(merged, layer, row))
            if found is not None and found.number:
                numbers.append(found.number)
                continue
            if found is not None:
                found.number = following
            numbers.append(following)
            following += 1
        special[here] = numbers
        for at, child in here.dirs.items():
            child.number = numbers[at]
    return NumberedInodes(following - 1, entries, special)
