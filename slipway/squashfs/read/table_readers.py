"""A directory's listing, read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from slipway.squashfs.format import (
    DIR_ENTRY,
    DIR_HEADER,
    DIRECTORY_RUN,
    XATTR_KEY,
    XATTR_NAMESPACES,
    XATTR_SIZE_MAX,
    XATTR_VALUE_APART,
    MetadataReader,
    Superblock,
)
from slipway.squashfs.read.inode_reader import Inode


def read_directory(
    metadata: MetadataReader, superblock: Superblock, inode: Inode
) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, inode reference, inode number and type of each entry, in order.

    Raises ValueError for a listing that the kernel would not read, names out of order included:
    the kernel would not find those.
    """
    left = inode.size
    block, offset = superblock.directory_table + inode.start, inode.offset
    last = b""
    while left:
        if left < DIR_HEADER.size:
            raise ValueError(f"the listing of directory {inode.number} ends too early")
        data, block, offset = metadata.read(block, offset, DIR_HEADER.size)
        count, start, base = DIR_HEADER.unpack(data)
        left -= DIR_HEADER.size
        if count >= DIRECTORY_RUN:
            raise ValueError(f"directory {inode.number} has a run of {count + 1} names")
        for _ in range(count + 1):
            data, block, offset = metadata.read(block, offset, DIR_ENTRY.size)
            inside, difference, kind, length = DIR_ENTRY.unpack(data)
            if length >= 256:
                raise ValueError(f"a name of {length + 1} bytes")
            name, block, offset = metadata.read(block, offset, length + 1)
            left -= DIR_ENTRY.size + length + 1
            if left < 0:
                raise ValueError(f"the listing of directory {inode.number} ends too early")
            if name <= last or b"/" in name or b"\0" in name or name in (b".", b".."):
                raise ValueError(f"directory {inode.number} has an impossible name {name!r}")
            last = name
            yield name, start << 16 | inside, base + difference, kind


class _Cursor:
    """Reads one structure after the other."""

    def __init__(self, metadata: MetadataReader, start: int, reference: int) -> None:
        self._metadata = metadata
        self._block, self._offset = start + (reference >> 16), reference & 0xFFFF

    def take(self, size: int) -> bytes:
        data, self._block, self._offset = self._metadata.read(self._block, self._offset, size)
        return data

    def value(self) -> bytes:
        (size,) = struct.unpack("<I", self.take(4))
        if size > XATTR_SIZE_MAX:
            raise ValueError(f"an attribute of {size} bytes")
        return self.take(size)


def read_xattrs(
    metadata: MetadataReader, start: int, reference: int, count: int
) -> dict[bytes, bytes]:
    """The `count` pairs at a reference; `start` is where the pairs' blocks begin.

    Raises ValueError for what cannot be pairs.
    """
    cursor = _Cursor(metadata, start, reference)
    attributes = {}
    for _ in range(count):
        kind, length = XATTR_KEY.unpack(cursor.take(XATTR_KEY.size))
        space = kind & ~XATTR_VALUE_APART
        if space >= len(XATTR_NAMESPACES):
            raise ValueError(f"attribute namespace {space}")
        name = XATTR_NAMESPACES[space] + cursor.take(length)
        value = cursor.value()
        if kind & XATTR_VALUE_APART:
            (apart,) = struct.unpack("<Q", value)
            value = _Cursor(metadata, start, apart).value()
        attributes[name] = value
    return attributes
