"""The merged tree -> inode table, directory table and the tables that inodes point into.

Directories are numbered on the way down, so that the names of one are neighbours, and written on
the way up, since a listing holds the positions of its inodes. Most inodes are plain files', which
come ready from slipway.squashfs.link.basic_inodes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from slipway.squashfs.compile import IMPLIED
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
    LIMIT,
    LIPC_TAIL,
    LREG_TAIL,
    NO_XATTR,
    REG,
    REG_TAIL,
    SYMLINK,
    SYMLINK_TAIL,
    Codec,
    ImageRules,
    MetadataWriter,
    SquashfsError,
)
from slipway.squashfs.link.basic_inodes import basic_inode_rows
from slipway.squashfs.link.data_layout import DataLayout
from slipway.squashfs.link.directory_writer import DirectoryWriter
from slipway.squashfs.link.inode_numbers import HardLinkIndex, number_inodes
from slipway.squashfs.link.merged_tree import MergedDirectory, MergedTree

Pairs = tuple[tuple[bytes, bytes], ...]
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
    "text",
)


@dataclass
class InodeTables:
    """What the inodes need, beside their own two tables."""

    inodes: bytes
    directories: bytes
    root: int
    count: int
    references: array[int]  # by inode number - 1
    ids: list[int]
    xattrs: list[Pairs]
    entries: int  # paths below the root


class InodeWriter:
    """Writes the tables of one image."""

    def __init__(
        self, merged: MergedTree, layout: DataLayout, rules: ImageRules, codec: Codec
    ) -> None:
        self._merged = merged
        self._layers = merged.layers
        self._layout = layout
        self._rules = rules
        self._inodes = MetadataWriter(codec)
        self._directories = MetadataWriter(codec)
        self._ids: dict[int, int] = {}
        self._xattrs: dict[Pairs, int] = {}
        self._kinds = [layer.columns["kind"].tobytes() for layer in self._layers]
        self._words = [layer.columns["block_words"].tobytes() for layer in self._layers]
        self._links = HardLinkIndex(merged)
        self._plain: list[list[bytes | None]] = []

    def write(self) -> InodeTables:
        """All inodes. Raises SquashfsError for more owners than the format holds."""
        numbered = number_inodes(self._merged, self._links)
        self._plain = basic_inode_rows(
            self._merged, self._layout, numbered, self._rules, self._owner
        )
        references = array("Q", bytes(8 * numbered.inodes))
        dirs = self._merged.dirs
        for directory in reversed(dirs):
            self._write_directory(directory, numbered.special.get(directory), references)
        if len(self._ids) > IDS_MAX:
            raise SquashfsError(f"{len(self._ids)} different owners; squashfs holds {IDS_MAX}")
        return InodeTables(
            self._inodes.finish(),
            self._directories.finish(),
            dirs[0].reference,
            numbered.inodes,
            references,
            list(self._ids),
            list(self._xattrs),
            numbered.entries,
        )

    def _children(
        self, directory: MergedDirectory
    ) -> Iterator[tuple[bytes, int, int, bytes | None]]:
        """Name, layer, row, and the inode where it is a plain file's."""
        if directory.span is not None:
            layer, first, end = directory.span
            return zip(
                self._layers[layer].names[first:end],
                repeat(layer),
                range(first, end),
                self._plain[layer][first:end],
            )
        return ((name, layer, row, None) for name, layer, row in directory.items or ())

    def _owner(self, value: int) -> int:
        if self._rules.all_root:
            value = 0
        index = self._ids.get(value)
        if index is None:
            index = self._ids[value] = len(self._ids)
        return index

    def _attributes(self, pairs: Pairs) -> int:
        return self._xattrs.setdefault(pairs, len(self._xattrs)) if pairs else NO_XATTR

    def _write_directory(
        self, directory: MergedDirectory, numbers: list[int] | None, references: array[int]
    ) -> None:
        listing = DirectoryWriter(self._directories)
        add, write = listing.add, self._inodes.write
        inode = directory.first - 1
        at = -1
        for name, layer, row, plain in self._children(directory):
            at += 1
            inode = inode + 1 if numbers is None else numbers[at]
            kind = REG
            if plain is not None:
                reference = write(plain)
            else:
                kind = self._kinds[layer][row]
                if kind == DIR:
                    reference = directory.dirs[at].reference
                else:
                    reference = self._write_file(layer, row, inode)
            references[inode - 1] = reference
            add(name, reference, inode, kind)
        self._finish_directory(directory, listing, len(directory.dirs), references)

    def _write_file(self, layer: int, row: int, inode: int) -> int:
        """Write the inode of anything but a directory, if it is not there yet; its reference."""
        at = {name: self._layers[layer].columns[name][row] for name in _COLUMNS}
        shared = self._links.find(layer, row)
        if shared is not None and shared.reference >= 0:
            return shared.reference
        kind, mode, size = at["kind"], at["mode"], at["size"]
        if kind != SYMLINK:
            mode = self._rules.file_mode(mode)
        owners = self._owner(at["uid"]), self._owner(at["gid"])
        attributes = self._attributes(self._layers[layer].xattrs[at["xattr"]])
        links = shared.names if shared is not None else 1
        if kind == REG:
            start, holes = self._layout.starts[layer][row], at["holes"]
            fragment = self._layout.fragments[layer][at["fragment"]], at["offset"]
            extended = links > 1 or attributes != NO_XATTR or holes or max(start, size) >= LIMIT
            if extended:
                tail = LREG_TAIL.pack(start, size, holes, links, *fragment, attributes)
            else:
                tail = REG_TAIL.pack(start, *fragment, size)
            tail += self._words[layer][4 * at["word"] : 4 * (at["word"] + at["words"])]
        else:
            extended = attributes != NO_XATTR
            tail = _tail(kind, links, size, self._layers[layer].texts[at["text"]], attributes)
        head = INODE.pack(kind + EXTENDED if extended else kind, mode, *owners, at["mtime"], inode)
        reference = self._inodes.write(head + tail)
        if shared is not None:
            shared.reference = reference
        return reference

    def _finish_directory(
        self,
        directory: MergedDirectory,
        listing: DirectoryWriter,
        subdirectories: int,
        references: array[int],
    ) -> None:
        layer, row = directory.row
        columns = self._layers[layer].columns
        implied = columns["flags"][row] & IMPLIED
        mode = self._rules.directory_mode(columns["mode"][row], directory.depth)
        block, offset, size, index = listing.finish()
        pairs = self._layers[layer].xattrs[columns["xattr"][row]]
        head = (
            mode,
            self._owner(columns["uid"][row]),
            self._owner(columns["gid"][row]),
            self._rules.mtime if implied else columns["mtime"][row],
            directory.number,
        )
        parent = directory.parent.number if directory.parent is not None else len(references) + 1
        links = 2 + subdirectories
        if pairs or index or size > _LISTING_MAX:
            attributes = self._attributes(pairs)
            directory.reference = self._inodes.write(
                INODE.pack(DIR + EXTENDED, *head)
                + LDIR_TAIL.pack(links, size + 3, block, parent, len(index), offset, attributes)
                + b"".join(index)
            )
        else:
            directory.reference = self._inodes.write(
                INODE.pack(DIR, *head) + DIR_TAIL.pack(block, links, size + 3, offset, parent)
            )
        if directory.parent is None:
            references[directory.number - 1] = directory.reference


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
