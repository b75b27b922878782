"""Inode numbers, and which files have several names.

The rule of the format: inodes are numbered 1 to n without gaps, all names of a file (hard links)
share one number, and a directory's listing stores each number as a signed difference of 16 bits
from the first of its run. So numbers are given on the way down, a directory's names one after the
other, root first: neighbours in a listing have neighbouring numbers, and nearly every listing is
one run. A directory's names are then the numbers `first`, `first + 1`, ..., and need not be kept.

A file with several names takes its number where the walk meets it first; its further names say
that number again, so the directories that have such names ("special" ones) keep a list.

Which names mean one file is known in two ways. Inside a layer, the compiler gives all names of a
file one positive `group`. Across layers, an upper layer's name may be a hard link to a file of a
lower one: it is merged as one more name of the lower *row*, whose group may be 0. So a file is
found by its layer and group where it has one, else by its layer and row; `HardLinkIndex` keeps the
two apart.
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


class HardLinkIndex:
    """The files that have more than one name in the image."""

    def __init__(self, merged: MergedTree) -> None:
        """Count the names of `merged`."""
        self._groups = [layer.columns["group"] for layer in merged.layers]
        self._by_group: list[dict[int, HardLinks]] = [{} for _ in merged.layers]
        self._by_row: list[dict[int, HardLinks]] = [{} for _ in merged.layers]
        for groups, live, files in zip(self._groups, merged.live, self._by_group, strict=True):
            if any(groups):
                for group in compress(groups, live):
                    if group:
                        files.setdefault(group, HardLinks()).names += 1
        if merged.linked:
            self._count_across_layers(merged)
        for files in (*self._by_group, *self._by_row):
            for key in [key for key, file in files.items() if file.names < 2]:
                del files[key]

    def _count_across_layers(self, merged: MergedTree) -> None:
        """A row that upper layers link to stands in the tree more than once: count its names."""
        for layer, row in merged.linked:
            group = self._groups[layer][row]
            if group:
                self._by_group[layer][group] = HardLinks()
            else:
                self._by_row[layer][row] = HardLinks()
        counted = {
            id(file): file
            for file in (self.find(layer, row) for layer, row in merged.linked)
            if file is not None
        }
        for directory in merged.dirs:
            for layer, row in rows_of(directory):
                file = self.find(layer, row)
                if file is not None and id(file) in counted:
                    file.names += 1

    def find(self, layer: int, row: int) -> HardLinks | None:
        """The file of a row; None where that is its only name."""
        group = self._groups[layer][row]
        return self._by_group[layer].get(group) if group else self._by_row[layer].get(row)

    def has_any(self, layer: int) -> bool:
        """Whether files of a layer have several names."""
        return bool(self._by_group[layer] or self._by_row[layer])

    def rows(self, layer: int) -> list[int]:
        """The rows of a layer that are names of such files, sorted."""
        by_group = self._by_group[layer]
        rows = [row for row, group in enumerate(self._groups[layer]) if group in by_group]
        return sorted([*rows, *self._by_row[layer]])


def rows_of(directory: MergedDirectory) -> Iterable[Row]:
    """Layer and row of each name in a directory, in order."""
    if directory.span is not None:
        layer, first, end = directory.span
        return zip(repeat(layer), range(first, end))
    return ((layer, row) for _, layer, row in directory.items or ())


@dataclass(frozen=True)
class NumberedInodes:
    """How many inodes and paths below the root there are.

    A directory's names have the numbers from its `first` on, except for those in `special`, which
    have names of shared files among them.
    """

    inodes: int
    entries: int
    special: dict[MergedDirectory, list[int]]


def number_inodes(merged: MergedTree, links: HardLinkIndex) -> NumberedInodes:
    """Give every directory its number and its names' first; the root is 1."""
    following, entries = 2, 0
    special: dict[MergedDirectory, list[int]] = {}
    merged.dirs[0].number = 1
    linked_layers = {layer for layer in range(len(merged.layers)) if links.has_any(layer)}
    linked_rows = {layer: links.rows(layer) for layer in linked_layers}
    for directory in merged.dirs:
        directory.first = following
        if directory.span is not None:
            layer, first, end = directory.span
            size = end - first
            rows = linked_rows.get(layer, [])
            neighbours = bisect_left(rows, first) == bisect_left(rows, end)
        else:
            items = directory.items or ()
            size = len(items)
            neighbours = linked_layers.isdisjoint({layer for _, layer, _ in items})
        entries += size
        if neighbours:
            for at, child in directory.dirs.items():
                child.number = following + at
            following += size
            continue
        numbers = []
        for layer, row in rows_of(directory):
            file = links.find(layer, row)
            if file is not None and file.number:
                numbers.append(file.number)
                continue
            if file is not None:
                file.number = following
            numbers.append(following)
            following += 1
        special[directory] = numbers
        for at, child in directory.dirs.items():
            child.number = numbers[at]
    return NumberedInodes(following - 1, entries, special)
