"""A directory's listing, read."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.squashfs.format import DIR_ENTRY, DIR_HEADER, DIRECTORY_RUN, Superblock
from slipway.squashfs.inoderead import Inode
from slipway.squashfs.metadata import MetadataReader


def read_listing(
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
