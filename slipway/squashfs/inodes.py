"""The merged tree -> inode table, directory table and the tables that inodes point into.

Directories are numbered on the way down, so that the names of one are neighbours, and written on
the way up, since a listing holds the positions of its inodes. One inode costs a few microseconds,
which is why the loop below is one long function with everything in local variables.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from slipway.squashfs.codecs import Codec
from slipway.squashfs.errors import SquashfsError
from slipway.squashfs.format import (
    BLKDEV,
    CHRDEV,
    DEVICE_TAIL,
    DIR,
    DIR_TAIL,
    EXTENDED,
    IDS_MAX,
    INODE,
    IPC_TAIL,
    LDEVICE_TAIL,
    LDIR_TAIL,
    LIPC_TAIL,
    LREG_TAIL,
    NO_FRAGMENT,
    NO_XATTR,
    REG,
    REG_TAIL,
    SYMLINK,
    SYMLINK_TAIL,
)
from slipway.squashfs.layer import IMPLIED
from slipway.squashfs.layout import Layout
from slipway.squashfs.listing import Listing
from slipway.squashfs.merge import Dir, Merged
from slipway.squashfs.metadata import MetadataWriter
from slipway.squashfs.numbering import find_shared, number
from slipway.squashfs.rules import Rules

Pairs = tuple[tuple[bytes, bytes], ...]
_LIMIT = 1 << 32
_LISTING_MAX = 65535 - 3  # bytes that a basic directory inode can say
_COLUMNS = (
    "kind",
    "mode",
    "uid",
    "gid",
    "mtime",
    "size",
    "holes",
    "fragment",
    "offset",
    "words",
    "word",
    "xattr",
    "group",
    "text",
)


@dataclass
class Tables:
    """What the inodes need, beside their own two tables."""

    inodes: bytes
    directories: bytes
    root: int
    count: int
    references: array[int]  # by inode number - 1
    ids: list[int]
    xattrs: list[Pairs]
    entries: int  # paths below the root


class Writer:
    """Writes the tables of one image."""

    def __init__(self, merged: Merged, layout: Layout, rules: Rules, codec: Codec) -> None:
        self._merged = merged
        self._layers = merged.layers
        self._layout = layout
        self._rules = rules
        self._inodes = MetadataWriter(codec)
        self._directories = MetadataWriter(codec)
        self._ids: dict[int, int] = {}
        self._xattrs: dict[Pairs, int] = {}
        self._words = [layer.columns["block_words"].tobytes() for layer in self._layers]
        self._shared = find_shared(merged)

    def write(self) -> Tables:
        """All inodes. Raises SquashfsError for more owners than the format holds."""
        numbered = number(self._merged, self._shared)
        references = array("Q", bytes(8 * numbered.inodes))
        dirs = self._merged.dirs
        for here in reversed(dirs):
            self._write_directory(here, numbered.special.get(here), references)
        if len(self._ids) > IDS_MAX:
            raise SquashfsError(f"{len(self._ids)} different owners; squashfs holds {IDS_MAX}")
        return Tables(
            self._inodes.finish(),
            self._directories.finish(),
            dirs[0].reference,
            numbered.inodes,
            references,
            list(self._ids),
            list(self._xattrs),
            numbered.entries,
        )

    def _children(self, here: Dir) -> Iterator[tuple[bytes, int, tuple[int, ...], int, int]]:
        """Name, layer, values of _COLUMNS, data start, row."""
        if here.span is not None:
            layer, first, end = here.span
            columns = self._layers[layer].columns
            return zip(
                self._layers[layer].names[first:end],
                repeat(layer),
                zip(*[columns[name][first:end] for name in _COLUMNS], strict=True),
                self._layout.starts[layer][first:end],
                range(first, end),
            )
        return (
            (
                name,
                layer,
                tuple([self._layers[layer].columns[column][row] for column in _COLUMNS]),
                self._layout.starts[layer][row],
                row,
            )
            for name, layer, row in here.items or ()
        )

    def _owner(self, value: int) -> int:
        if self._rules.all_root:
            value = 0
        found = self._ids.get(value)
        if found is None:
            found = self._ids[value] = len(self._ids)
        return found

    def _attributes(self, pairs: Pairs) -> int:
        return self._xattrs.setdefault(pairs, len(self._xattrs)) if pairs else NO_XATTR

    def _write_directory(
        self, here: Dir, numbers: list[int] | None, references: array[int]
    ) -> None:
        listing = Listing(self._directories)
        add = listing.add
        inodes, shared, words = self._inodes, self._shared, self._words
        write, position = inodes.write, inodes.position
        fragments, owner = self._layout.fragments, self._owner
        readable = 0o400 if here.depth < self._rules.readable_depth else 0
        inode = here.first - 1
        dirs, subdirectories = here.dirs, len(here.dirs)
        at = -1
        for name, layer, values, start, row in self._children(here):
            at += 1
            inode = inode + 1 if numbers is None else numbers[at]
            kind = values[0]
            if kind == DIR:
                child = dirs[at]
                references[inode - 1] = child.reference
                add(name, child.reference, inode, DIR)
                continue
            (
                _,
                mode,
                uid,
                gid,
                mtime,
                size,
                holes,
                fragment,
                offset,
                count,
                word,
                xattr,
                group,
                text,
            ) = values
            links = 1
            several = None
            if shared:
                several = shared.get((layer, ~group if group else row))
                if several is not None:
                    if several.reference >= 0:
                        add(name, several.reference, inode, kind)
                        continue
                    links = several.names
            pairs = self._layers[layer].xattrs[xattr] if xattr else ()
            attributes = self._attributes(pairs) if pairs else NO_XATTR
            uid, gid = owner(uid), owner(gid)
            block, inside = position()
            if kind == REG:
                mode |= readable
                piece = fragments[layer][fragment] if fragment else NO_FRAGMENT
                sizes = words[layer][4 * word : 4 * (word + count)] if count else b""
                if links == 1 and not pairs and not holes and start < _LIMIT and size < _LIMIT:
                    write(
                        INODE.pack(REG, mode, uid, gid, mtime, inode)
                        + REG_TAIL.pack(start, piece, offset, size)
                        + sizes
                    )
                else:
                    write(
                        INODE.pack(REG + EXTENDED, mode, uid, gid, mtime, inode)
                        + LREG_TAIL.pack(start, size, holes, links, piece, offset, attributes)
                        + sizes
                    )
            else:
                if kind != SYMLINK:
                    mode |= readable
                head = INODE.pack(kind + EXTENDED if pairs else kind, mode, uid, gid, mtime, inode)
                target = self._layers[layer].texts[text]
                write(head + _tail(kind, links, size, target, attributes))
            reference = block << 16 | inside
            references[inode - 1] = reference
            if several is not None:
                several.reference = reference
            add(name, reference, inode, kind)
        self._finish_directory(here, listing, subdirectories, references)

    def _finish_directory(
        self, here: Dir, listing: Listing, subdirectories: int, references: array[int]
    ) -> None:
        layer, row = here.row
        columns = self._layers[layer].columns
        implied = columns["flags"][row] & IMPLIED
        mode = columns["mode"][row]
        # The root counts as level 0, its names as level 1 (find -maxdepth).
        if here.depth <= self._rules.readable_depth and self._rules.readable_depth:
            mode |= 0o600
        block, offset, size, index = listing.finish()
        pairs = self._layers[layer].xattrs[columns["xattr"][row]]
        head = (
            mode,
            self._owner(columns["uid"][row]),
            self._owner(columns["gid"][row]),
            self._rules.mtime if implied else columns["mtime"][row],
            here.number,
        )
        parent = here.parent.number if here.parent is not None else len(references) + 1
        links = 2 + subdirectories
        place, inside = self._inodes.position()
        if pairs or index or size > _LISTING_MAX:
            attributes = self._attributes(pairs)
            self._inodes.write(
                INODE.pack(DIR + EXTENDED, *head)
                + LDIR_TAIL.pack(links, size + 3, block, parent, len(index), offset, attributes)
                + b"".join(index)
            )
        else:
            self._inodes.write(
                INODE.pack(DIR, *head) + DIR_TAIL.pack(block, links, size + 3, offset, parent)
            )
        here.reference = place << 16 | inside
        if here.parent is None:
            references[here.number - 1] = here.reference


def _tail(kind: int, links: int, size: int, target: bytes, attributes: int) -> bytes:
    extended = attributes != NO_XATTR
    if kind == SYMLINK:
        tail = SYMLINK_TAIL.pack(links, len(target)) + target
        return tail + IPC_TAIL.pack(attributes) if extended else tail
    if kind in (BLKDEV, CHRDEV):
        return (
            LDEVICE_TAIL.pack(links, size, attributes)
            if extended
            else DEVICE_TAIL.pack(links, size)
        )
    return LIPC_TAIL.pack(links, attributes) if extended else IPC_TAIL.pack(links)
