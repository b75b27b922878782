"""The inodes that an image has most of, ready to be written: files without anything special.

Packing them one by one in the loop that writes directories costs more than all the rest of it;
here whole columns are packed at once, at the speed of C.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, repeat

from slipway.squashfs.compile import CompiledLayer
from slipway.squashfs.format import LIMIT, REG, REG_WHOLE, ImageRules
from slipway.squashfs.link.data_layout import DataLayout
from slipway.squashfs.link.inode_numbers import NumberedInodes
from slipway.squashfs.link.merged_tree import MergedTree


def basic_inode_rows(
    merged: MergedTree,
    layout: DataLayout,
    numbered: NumberedInodes,
    rules: ImageRules,
    owner: Callable[[int], int],
) -> list[list[bytes | None]]:
    """For each layer, for each row: its basic inode, or None where it needs a closer look.

    `owner` gives the place of a user or group in the table of them.
    """
    numbers = _numbers(merged, numbered)
    rows = []
    for number, layer in enumerate(merged.layers):
        chosen = _choose(layer, layout.starts[number], numbers[number])
        packed = iter(_pack(layer, layout, number, chosen, rules, owner))
        rows.append([next(packed) if inode else None for inode in chosen])
    return rows


def _numbers(merged: MergedTree, numbered: NumberedInodes) -> list[array[int]]:
    """Inode numbers of rows in directories where all are neighbours; or 0."""
    numbers = [array("I", bytes(4 * layer.rows)) for layer in merged.layers]
    for directory in merged.dirs:
        if directory.span is not None and directory not in numbered.special:
            layer, first, end = directory.span
            numbers[layer][first:end] = array(
                "I", range(directory.first, directory.first + end - first)
            )
    return numbers


def _choose(layer: CompiledLayer, starts: Sequence[int], numbers: array[int]) -> list[int]:
    """The numbers of rows that a basic inode can describe, 0 for the others."""
    columns = layer.columns
    return [
        number
        if kind == REG and not (group or xattr or holes) and size < LIMIT and start < LIMIT
        else 0
        for number, kind, group, xattr, holes, size, start in zip(
            numbers,
            columns["kind"],
            columns["group"],
            columns["xattr"],
            columns["holes"],
            columns["size"],
            starts,
            strict=True,
        )
    ]


def _pack(
    layer: CompiledLayer,
    layout: DataLayout,
    number: int,
    chosen: list[int],
    rules: ImageRules,
    owner: Callable[[int], int],
) -> list[bytes]:
    def column(name: str) -> list[int]:
        return list(compress(layer.columns[name], chosen))

    def owners(name: str) -> Iterator[int]:
        values = column(name)
        places = {value: owner(value) for value in dict.fromkeys(values)}
        return map(places.__getitem__, values)

    modes = column("mode")
    mended = {mode: rules.file_mode(mode) for mode in set(modes)}
    packed = list(
        map(
            REG_WHOLE.pack,
            repeat(REG),
            map(mended.__getitem__, modes),
            owners("uid"),
            owners("gid"),
            column("mtime"),
            compress(chosen, chosen),
            compress(layout.starts[number], chosen),
            map(layout.fragments[number].__getitem__, column("fragment")),
            column("offset"),
            column("size"),
        )
    )
    words = layer.columns["block_words"].tobytes()
    counts, firsts = column("words"), column("word")
    for at in compress(range(len(packed)), counts):  # few files fill a block
        packed[at] += words[4 * firsts[at] : 4 * (firsts[at] + counts[at])]
    return packed
