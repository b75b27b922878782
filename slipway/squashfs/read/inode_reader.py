"""One inode, read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from slipway.squashfs.format import (
    BLKDEV,
    CHRDEV,
    DEVICE_TAIL,
    DIR,
    DIR_TAIL,
    EXTENDED,
    INODE,
    IPC_TAIL,
    LDIR_TAIL,
    LREG_TAIL,
    LSOCKET,
    NO_FRAGMENT,
    NO_XATTR,
    REG,
    REG_TAIL,
    SYMLINK,
    SYMLINK_MAX,
    SYMLINK_TAIL,
    MetadataReader,
    Superblock,
)


@dataclass(frozen=True)
class Inode:
    """What an inode says. `kind` is the basic type; `mode` the permissions only.

    `size` is a file's or a listing's bytes; `device` the packed number of a device node.
    `start`, `words`, `fragment`, `offset` say where content is; for a directory `start` and
    `offset` say where its listing is.
    """

    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    nlink: int = 1
    size: int = 0
    device: int = 0
    target: bytes = b""
    xattr: int | None = None
    start: int = 0
    words: tuple[int, ...] = ()
    fragment: int = NO_FRAGMENT
    offset: int = 0
    holes: int = 0
    parent: int = 0


class _Cursor:
    """Reads one structure after the other."""

    def __init__(self, metadata: MetadataReader, position: int, offset: int) -> None:
        self._metadata, self._position, self._offset = metadata, position, offset

    def take(self, size: int) -> bytes:
        data, self._position, self._offset = self._metadata.read(self._position, self._offset, size)
        return data

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def _xattr(number: int) -> int | None:
    return None if number == NO_XATTR else number


def read_inode(
    metadata: MetadataReader, superblock: Superblock, ids: tuple[int, ...], reference: int
) -> Inode:
    """The inode at a reference. Raises ValueError where it is none."""
    cursor = _Cursor(metadata, superblock.inode_table + (reference >> 16), reference & 0xFFFF)
    kind, mode, uid, gid, mtime, number = cursor.unpack(INODE)
    if not 1 <= kind <= LSOCKET:
        raise ValueError(f"an inode of type {kind}")
    if uid >= len(ids) or gid >= len(ids):
        raise ValueError(f"inode {number} belongs to nobody")
    if not 1 <= number <= superblock.inodes:
        raise ValueError(f"inode {number} of {superblock.inodes}")
    extended = kind > EXTENDED
    kind -= EXTENDED if extended else 0
    head = (kind, mode & 0o7777, ids[uid], ids[gid], mtime, number)
    if kind == DIR:
        return _directory(cursor, extended, head)
    if kind == REG:
        return _file(cursor, extended, superblock, head)
    if kind == SYMLINK:
        nlink, length = cursor.unpack(SYMLINK_TAIL)
        if not 0 < length <= SYMLINK_MAX:
            raise ValueError(f"a symbolic link of {length} bytes")
        target = cursor.take(length)
        xattr = _xattr(cursor.unpack(IPC_TAIL)[0]) if extended else None
        return Inode(*head, nlink=nlink, size=length, target=target, xattr=xattr)
    device = 0
    if kind in (BLKDEV, CHRDEV):
        nlink, device = cursor.unpack(DEVICE_TAIL)
    else:
        (nlink,) = cursor.unpack(IPC_TAIL)
    xattr = _xattr(cursor.unpack(IPC_TAIL)[0]) if extended else None
    return Inode(*head, nlink=nlink, device=device, xattr=xattr)


def _directory(cursor: _Cursor, extended: bool, head: tuple[int, int, int, int, int, int]) -> Inode:
    xattr = None
    if extended:
        nlink, size, block, parent, _, offset, number = cursor.unpack(LDIR_TAIL)
        xattr = _xattr(number)
    else:
        block, nlink, size, offset, parent = cursor.unpack(DIR_TAIL)
    if size < 3:
        raise ValueError(f"directory {head[5]} has an impossible size")
    return Inode(
        *head, nlink=nlink, size=size - 3, xattr=xattr, start=block, offset=offset, parent=parent
    )


def _file(
    cursor: _Cursor,
    extended: bool,
    superblock: Superblock,
    head: tuple[int, int, int, int, int, int],
) -> Inode:
    holes, nlink, xattr = 0, 1, None
    if extended:
        start, size, holes, nlink, fragment, offset, number = cursor.unpack(LREG_TAIL)
        xattr = _xattr(number)
    else:
        start, fragment, offset, size = cursor.unpack(REG_TAIL)
    blocks, rest = divmod(size, superblock.block_size)
    if rest and fragment == NO_FRAGMENT:
        blocks += 1
    if blocks * 4 > 64 * superblock.bytes_used:
        raise ValueError(f"file {head[5]} has an impossible size")
    words = struct.unpack(f"<{blocks}I", cursor.take(4 * blocks)) if blocks else ()
    return Inode(
        *head,
        nlink=nlink,
        size=size,
        xattr=xattr,
        start=start,
        words=words,
        fragment=fragment,
        offset=offset,
        holes=holes,
    )
