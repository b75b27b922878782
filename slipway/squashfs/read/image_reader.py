"""Any squashfs 4.0 image, read: its tree, contents and attributes.

Made for images that nobody vouches for: every count and position is checked against the size of
the file before it costs memory or time, and whatever does not fit is a SquashfsError.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.squashfs.format import (
    DATA_STORED,
    DIR,
    FRAGMENT,
    METADATA_SIZE,
    NO_FRAGMENT,
    NO_TABLE,
    REG,
    XATTR_ID,
    XATTR_TABLE,
    MetadataReader,
    SquashfsError,
    Superblock,
    decompressor,
)
from slipway.squashfs.read.inode_reader import Inode, read_inode
from slipway.squashfs.read.table_readers import read_directory, read_xattrs


@dataclass(frozen=True)
class ImageEntry:
    """One name in an image. `path` is below the root; the root's own is empty."""

    path: bytes
    inode: Inode


class SquashfsImage:
    """An open image; use `opened`."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self.path = path
        self.superblock = Superblock.unpack(os.pread(handle, Superblock.SIZE, 0))
        block = self.superblock
        if not Superblock.SIZE <= block.bytes_used <= self._size:
            raise ValueError(f"it says {block.bytes_used} bytes and has {self._size}")
        self._decompress = decompressor(block.compressor)
        self._metadata = MetadataReader(self._read_at, self._decompress)
        self._ids = self._numbers("I", block.id_table, block.ids)
        self._fragments = self._fragment_table()
        self._last_fragment: tuple[int, bytes] = (-1, b"")

    def _read_at(self, position: int, size: int) -> bytes:
        if not 0 <= position <= position + size <= self.superblock.bytes_used:
            raise ValueError(f"{size} bytes at {position} are outside of the image")
        data = os.pread(self._handle, size, position)
        if len(data) != size:
            raise ValueError("the file ends too early")
        return data

    def _table(self, position: int, size: int) -> bytes:
        """A table that has a list of its blocks at `position`."""
        count = -(-size // METADATA_SIZE)
        if size > 64 * self.superblock.bytes_used:
            raise ValueError(f"a table of {size} bytes")
        starts = struct.unpack(f"<{count}Q", self._read_at(position, 8 * count))
        out = b"".join(self._metadata.block(start)[0] for start in starts)
        if len(out) < size:
            raise ValueError("a table ends too early")
        return out[:size]

    def _numbers(self, code: str, position: int, count: int) -> tuple[int, ...]:
        size = struct.calcsize("<" + code)
        return struct.unpack(f"<{count}{code}", self._table(position, size * count))

    def _fragment_table(self) -> list[tuple[int, int]]:
        block = self.superblock
        if not block.fragments:
            return []
        data = self._table(block.fragment_table, FRAGMENT.size * block.fragments)
        return [(start, word) for start, word, _ in FRAGMENT.iter_unpack(data)]

    def references(self) -> tuple[int, ...]:
        """The export table: the inode reference of each inode number, from 1 on."""
        if self.superblock.export_table == NO_TABLE:
            return ()
        return self._numbers("Q", self.superblock.export_table, self.superblock.inodes)

    def inode(self, reference: int) -> Inode:
        """The inode at a reference."""
        return read_inode(self._metadata, self.superblock, self._ids, reference)

    def walk(self) -> Iterator[ImageEntry]:
        """All names, parents first, in the order of the names. The root comes first."""
        root = self.inode(self.superblock.root)
        if root.kind != DIR:
            raise ValueError("the root is not a directory")
        seen: set[int] = set()
        # Each inode is parsed once, however many names it has, and each listing byte is a name's.
        budget = self.superblock.inodes
        stack = [ImageEntry(b"", root)]
        while stack:
            entry = stack.pop()
            yield entry
            inode = entry.inode
            if inode.kind != DIR:
                continue
            if inode.number in seen or len(seen) > budget:
                raise ValueError(f"a directory that is in two places: {entry.path!r}")
            seen.add(inode.number)
            prefix = entry.path + b"/" if entry.path else b""
            children = []
            for name, reference, number, kind in self.listing(inode):
                child = self.inode(reference)
                if (child.number, child.kind) != (number, kind):
                    raise ValueError(f"{prefix + name!r} does not lead to its inode")
                children.append(ImageEntry(prefix + name, child))
            stack += reversed(children)

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """The extended attributes of an inode."""
        if inode.xattr is None:
            return {}
        if self.superblock.xattr_table == NO_TABLE:
            raise ValueError("attributes without a table of them")
        head = self._read_at(self.superblock.xattr_table, XATTR_TABLE.size)
        start, count, _ = XATTR_TABLE.unpack(head)
        if inode.xattr >= count:
            raise ValueError(f"attribute set {inode.xattr} of {count}")
        at = inode.xattr * XATTR_ID.size
        position = self.superblock.xattr_table + XATTR_TABLE.size + at // METADATA_SIZE * 8
        (block,) = struct.unpack("<Q", self._read_at(position, 8))
        data, _, _ = self._metadata.read(block, at % METADATA_SIZE, XATTR_ID.size)
        reference, pairs, _ = XATTR_ID.unpack(data)
        return read_xattrs(self._metadata, start, reference, pairs)

    def listing(self, inode: Inode) -> Iterator[tuple[bytes, int, int, int]]:
        """Name, inode reference, inode number and type of each name in a directory, in order."""
        return read_directory(self._metadata, self.superblock, inode)

    def content_block(self, inode: Inode, number: int) -> bytes:
        """The part of a file's content that stands in its block `number`, counted from 0."""
        size = self.superblock.block_size
        expected = min(size, inode.size - number * size)
        if number < len(inode.words):
            word = inode.words[number]
            if not word & ~DATA_STORED:
                return bytes(expected)
            before = sum(word & ~DATA_STORED for word in inode.words[:number])
            return self._block(inode.start + before, word, expected)
        data = self._fragment(inode.fragment)
        if inode.offset + expected > len(data):
            raise ValueError(f"fragment {inode.fragment} ends too early")
        return data[inode.offset : inode.offset + expected]

    def content(self, inode: Inode) -> Iterator[bytes]:
        """A file's content in pieces; a hole is a piece of zeros."""
        left, position = inode.size, inode.start
        for word in inode.words:
            expected = min(left, self.superblock.block_size)
            size = word & ~DATA_STORED
            if not size:
                yield bytes(expected)
            else:
                yield self._block(position, word, expected)
            position += size
            left -= expected
        if inode.fragment != NO_FRAGMENT and left:
            data = self._fragment(inode.fragment)
            if inode.offset + left > len(data):
                raise ValueError(f"fragment {inode.fragment} ends too early")
            yield data[inode.offset : inode.offset + left]

    def stored_blocks(self, inode: Inode) -> Iterator[bytes]:
        """A file's blocks as they are stored, without what is in a fragment."""
        position = inode.start
        for word in inode.words:
            yield self._stored(position, word)
            position += word & ~DATA_STORED

    def stored_fragment(self, number: int) -> tuple[bytes, bool]:
        """A fragment as it is stored, and whether it is compressed."""
        if number >= len(self._fragments):
            raise ValueError(f"fragment {number} of {len(self._fragments)}")
        start, word = self._fragments[number]
        return self._stored(start, word), not word & DATA_STORED

    def _stored(self, position: int, word: int) -> bytes:
        size = word & ~DATA_STORED
        if size > self.superblock.block_size:
            raise ValueError(f"a data block of {size} bytes at {position}")
        return self._read_at(position, size)

    def _block(self, position: int, word: int, expected: int | None) -> bytes:
        data = self._stored(position, word)
        if not word & DATA_STORED:
            data = self._decompress(data, self.superblock.block_size)
        if expected is not None and len(data) != expected:
            raise ValueError(f"the data block at {position} has {len(data)} of {expected} bytes")
        return data

    def _fragment(self, number: int) -> bytes:
        if number >= len(self._fragments):
            raise ValueError(f"fragment {number} of {len(self._fragments)}")
        if self._last_fragment[0] != number:
            start, word = self._fragments[number]
            self._last_fragment = number, self._block(start, word, None)
        return self._last_fragment[1]


@contextmanager
def open_image(path: Path) -> Iterator[SquashfsImage]:
    """An image to read. Whatever is wrong with it, in the block too, is a SquashfsError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SquashfsError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        yield SquashfsImage(handle, path)
    except (ValueError, struct.error) as error:
        raise SquashfsError(f"the squashfs image is damaged: {error}", where=str(path)) from error
    except OSError as error:
        raise SquashfsError(f"cannot be read: {error.strerror}", where=str(path)) from error
    finally:
        os.close(handle)


@dataclass(frozen=True)
class ImageCheck:
    """What an image holds: paths below the root, inodes, bytes of file content."""

    entries: int
    inodes: int
    content: int


def check_image(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> ImageCheck:
    """Read a whole image: tables, names, link counts, attributes and all contents.

    Raises SquashfsError for the first thing that is not as it must be.
    """
    with open_image(path) as image:
        return _check(image, on_bytes)


def _check(image: SquashfsImage, on_bytes: Callable[[int], None] | None) -> ImageCheck:
    names: dict[int, int] = {}
    links: dict[int, int] = {}
    entries = content = 0
    references = image.references()
    for entry in image.walk():
        inode = entry.inode
        entries += 1
        first = inode.number not in names
        names[inode.number] = names.get(inode.number, 0) + 1
        links[inode.number] = 0 if inode.kind == DIR else inode.nlink
        if not first:
            continue
        image.xattrs(inode)
        if references and image.inode(references[inode.number - 1]) != inode:
            raise ValueError(f"the export table leads elsewhere for {entry.path!r}")
        if inode.kind == REG:
            content += inode.size
            for piece in image.content(inode):
                if on_bytes is not None:
                    on_bytes(len(piece))
    for number, count in names.items():
        if links[number] and links[number] != count:
            raise ValueError(f"inode {number} has {count} names and says {links[number]}")
    if len(names) != image.superblock.inodes:
        raise ValueError(f"{image.superblock.inodes} inodes, of which {len(names)} have names")
    return ImageCheck(entries - 1, len(names), content)
