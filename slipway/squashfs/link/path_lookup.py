"""Single paths of a stack of compiled layers, without merging all of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from slipway.squashfs.compile import LOWER_LINK, OPAQUE, WHITEOUT, CompiledLayer
from slipway.squashfs.format import DIR, SYMLINK

Row = tuple[int, int]
"""A layer's index and a row in it."""

_LINKS_MAX = 40  # as the kernel's own limit


def child_span(layers: Sequence[CompiledLayer], row: Row) -> tuple[int, int]:
    """First and last + 1 of the rows of a directory's names."""
    columns = layers[row[0]].columns
    first = columns["start"][row[1]]
    return first, first + columns["size"][row[1]]


def visible_child(layers: Sequence[CompiledLayer], rows: list[Row]) -> list[Row]:
    """The rows of one directory, lowest first, from the topmost opaque one on."""
    for at in range(len(rows) - 1, 0, -1):
        layer, row = rows[at]
        if layers[layer].columns["flags"][row] & OPAQUE:
            return rows[at:]
    return rows


def find_child(layers: Sequence[CompiledLayer], rows: list[Row], name: bytes) -> list[Row]:
    """What a directory's rows have under a name: nothing, one file, or a directory's rows."""
    matches: list[Row] = []
    for layer, row in rows:
        first, end = child_span(layers, (layer, row))
        at = bisect_left(layers[layer].names, name, first, end)
        if at == end or layers[layer].names[at] != name:
            continue
        kind = layers[layer].columns["kind"][at]
        was_dir = matches and layers[matches[0][0]].columns["kind"][matches[0][1]] == DIR
        if kind == WHITEOUT:
            matches = []
        elif kind == DIR and was_dir and not layers[layer].columns["flags"][at] & OPAQUE:
            matches.append((layer, at))
        else:
            matches = [(layer, at)]
    return matches


def look_up_path(layers: Sequence[CompiledLayer], below: int, names: Sequence[bytes]) -> list[Row]:
    """What the layers under `below` have at a path; symbolic links are not followed.

    One row for a file, the rows of all layers for a directory, none for nothing.
    """
    rows = visible_child(layers, [(number, 0) for number in range(below)])
    for depth, name in enumerate(names):
        rows = find_child(layers, rows, name)
        if not rows:
            return []
        layer, row = rows[0]
        kind = layers[layer].columns["kind"][row]
        if kind == LOWER_LINK:
            target = layers[layer].texts[layers[layer].columns["text"][row]]
            return (
                look_up_path(layers, layer, target.split(b"/")) if depth == len(names) - 1 else []
            )
        if kind != DIR and depth < len(names) - 1:
            return []
    return rows


def kind_at(layers: Sequence[CompiledLayer], path: bytes) -> int | None:
    """The kind of what is at a path, links not followed; None where there is nothing."""
    rows = look_up_path(layers, len(layers), [name for name in path.split(b"/") if name])
    return layers[rows[0][0]].columns["kind"][rows[0][1]] if rows else None


def resolve_path(layers: Sequence[CompiledLayer], path: bytes) -> bytes:
    """Follow symbolic links inside the root, as a process in the container would.

    What does not exist stays as it is written. A circle of links is cut short.
    """
    done: list[bytes] = []
    todo = [name for name in path.split(b"/") if name]
    followed = 0
    while todo:
        name = todo.pop(0)
        if name == b"..":
            done = done[:-1]
        elif name != b".":
            rows = look_up_path(layers, len(layers), [*done, name])
            target = _link_target(layers, rows[0]) if rows else None
            if target is None or followed == _LINKS_MAX:
                done.append(name)
                continue
            followed += 1
            todo = [piece for piece in target.split(b"/") if piece] + todo
            done = [] if target.startswith(b"/") else done
    return b"/".join(done)


def _link_target(layers: Sequence[CompiledLayer], row: Row) -> bytes | None:
    """Of a symbolic link; None of anything else."""
    layer = layers[row[0]]
    if layer.columns["kind"][row[1]] != SYMLINK:
        return None
    return layer.texts[layer.columns["text"][row[1]]]


def child_names(layers: Sequence[CompiledLayer], path: bytes) -> set[bytes]:
    """The names in a directory, whiteouts left out; none where there is no directory."""
    rows = look_up_path(layers, len(layers), [name for name in path.split(b"/") if name])
    names: set[bytes] = set()
    for row in rows:
        layer = layers[row[0]]
        if layer.columns["kind"][row[1]] != DIR:
            return set()
        first, end = child_span(layers, row)
        for at in range(first, end):
            if layer.columns["kind"][at] == WHITEOUT:
                names.discard(layer.names[at])
            else:
                names.add(layer.names[at])
    return names
