"""The squashfs 4.0 format: its constants and structures.

Sources: the kernel's Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h. All
numbers are little endian, all positions absolute unless a field says otherwise.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

MAGIC = 0x73717368
METADATA_SIZE = 8192
"""Bytes of a metadata block before compression; the last one of a table may be shorter."""
METADATA_STORED = 1 << 15
"""In the two-byte length of a metadata block: not compressed."""
DATA_STORED = 1 << 24
"""In the four-byte length of a data or fragment block: not compressed."""
NO_FRAGMENT = 0xFFFFFFFF
LIMIT = 1 << 32  # of sizes and positions in a basic inode
NO_XATTR = 0xFFFFFFFF
NO_TABLE = 0xFFFFFFFFFFFFFFFF
PAD = 4096
NAME_MAX = 256  # the format's own limit; the kernel's is 255
SYMLINK_MAX = 65535
DIRECTORY_RUN = 256
"""Entries that may share one directory header."""
IDS_MAX = 65535

# Superblock flags.
UNCOMPRESSED_INODES = 1 << 0
UNCOMPRESSED_DATA = 1 << 1
UNCOMPRESSED_FRAGMENTS = 1 << 3
DUPLICATES = 1 << 6
EXPORTABLE = 1 << 7
NO_XATTRS = 1 << 9
COMPRESSOR_OPTIONS = 1 << 10

# Inode types. The extended form of each is 7 higher; directory entries name the basic ones.
DIR, REG, SYMLINK, BLKDEV, CHRDEV, FIFO, SOCKET = range(1, 8)
EXTENDED = 7
LDIR, LREG, LSYMLINK, LBLKDEV, LCHRDEV, LFIFO, LSOCKET = range(8, 15)

KIND_MODE = {
    DIR: stat.S_IFDIR,
    REG: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    BLKDEV: stat.S_IFBLK,
    CHRDEV: stat.S_IFCHR,
    FIFO: stat.S_IFIFO,
    SOCKET: stat.S_IFSOCK,
}
MODE_KIND = {mode: kind for kind, mode in KIND_MODE.items()}

INODE = struct.Struct("<HHHHII")  # type, permissions, uid index, gid index, mtime, number
DIR_TAIL = struct.Struct("<IIHHI")  # listing block, nlink, size + 3, offset, parent
LDIR_TAIL = struct.Struct("<IIIIHHI")  # nlink, size + 3, block, parent, index count, offset, xattr
REG_TAIL = struct.Struct("<IIII")  # start, fragment, offset in it, size; then block sizes
REG_WHOLE = struct.Struct("<HHHHIIIIII")  # INODE and REG_TAIL
LREG_TAIL = struct.Struct("<QQQIIII")  # start, size, holes, nlink, fragment, offset, xattr
SYMLINK_TAIL = struct.Struct("<II")  # nlink, length; then the target (and, extended, the xattr)
DEVICE_TAIL = struct.Struct("<II")  # nlink, device
LDEVICE_TAIL = struct.Struct("<III")  # nlink, device, xattr
IPC_TAIL = struct.Struct("<I")  # nlink
LIPC_TAIL = struct.Struct("<II")  # nlink, xattr

DIR_HEADER = struct.Struct("<III")  # count - 1, inode block, base inode number
DIR_ENTRY = struct.Struct("<HhHH")  # inode offset, number - base, type, name length - 1
DIR_INDEX = struct.Struct("<III")  # offset in the listing, block, name length - 1
FRAGMENT = struct.Struct("<QII")  # start, size word, unused
XATTR_ID = struct.Struct("<QII")  # reference, count, bytes
XATTR_TABLE = struct.Struct("<QII")  # start of the pairs' blocks, ids, unused
XATTR_KEY = struct.Struct("<HH")  # namespace, length of the rest of the name
XATTR_VALUE_APART = 0x100
XATTR_NAME_MAX = 255  # the kernel's own limits: xattr(7)
XATTR_SIZE_MAX = 1 << 16
XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.")

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")


def device_number(major: int, minor: int) -> int:
    """Major and minor as the kernel's new_encode_dev packs them."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def device_parts(number: int) -> tuple[int, int]:
    """Major and minor of what `device_number` packed."""
    return (number & 0xFFF00) >> 8, (number & 0xFF) | ((number >> 12) & 0xFFF00)


@dataclass(frozen=True)
class Superblock:
    """The first 96 bytes. Positions are bytes from the start of the file."""

    inodes: int
    mtime: int
    block_size: int
    fragments: int
    compressor: int
    flags: int
    ids: int
    root: int  # inode reference: block position in the inode table << 16 | offset in the block
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    SIZE = _SUPERBLOCK.size

    def pack(self) -> bytes:
        """As stored."""
        return _SUPERBLOCK.pack(
            MAGIC,
            self.inodes,
            self.mtime,
            self.block_size,
            self.fragments,
            self.compressor,
            self.block_size.bit_length() - 1,
            self.flags,
            self.ids,
            4,
            0,
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Superblock:
        """From the first bytes of a file. Raises ValueError where it is not squashfs 4.0."""
        if len(data) < cls.SIZE:
            raise ValueError("shorter than a squashfs superblock")
        magic, inodes, mtime, size, fragments, compressor, log, *rest = _SUPERBLOCK.unpack(
            data[: cls.SIZE]
        )
        flags, ids, major, minor, root, *positions = rest
        if magic != MAGIC:
            raise ValueError("no squashfs superblock")
        if (major, minor) != (4, 0):
            raise ValueError(f"squashfs {major}.{minor}, not 4.0")
        if log not in range(12, 21) or size != 1 << log:
            raise ValueError(f"a block size of {size} (2^{log}) does not exist")
        return cls(inodes, mtime, size, fragments, compressor, flags, ids, root, *positions)
