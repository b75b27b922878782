"""The format on disk: superblock, inodes, metadata blocks, compressors; options of a writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.squashfs.format.compressors import IDS, Codec, decompressor, find_codec
    from slipway.squashfs.format.errors import CacheError, LayerError, SquashfsError
    from slipway.squashfs.format.metadata import MetadataReader, MetadataWriter, indexed_table
    from slipway.squashfs.format.options import HotFile, ImageRules, SqshOptions
    from slipway.squashfs.format.structures import (
        BLKDEV,
        CHRDEV,
        COMPRESSOR_OPTIONS,
        DATA_STORED,
        DEVICE_TAIL,
        DIR,
        DIR_ENTRY,
        DIR_HEADER,
        DIR_INDEX,
        DIR_TAIL,
        DIRECTORY_RUN,
        DUPLICATES,
        EXPORTABLE,
        EXTENDED,
        FIFO,
        FRAGMENT,
        IDS_MAX,
        INODE,
        IPC_TAIL,
        KIND_MODE,
        LDEVICE_TAIL,
        LDIR_TAIL,
        LIMIT,
        LIPC_TAIL,
        LREG_TAIL,
        LSOCKET,
        METADATA_SIZE,
        METADATA_STORED,
        MODE_KIND,
        NAME_MAX,
        NO_FRAGMENT,
        NO_TABLE,
        NO_XATTR,
        NO_XATTRS,
        PAD,
        REG,
        REG_TAIL,
        REG_WHOLE,
        SYMLINK,
        SYMLINK_MAX,
        SYMLINK_TAIL,
        UNCOMPRESSED_DATA,
        UNCOMPRESSED_FRAGMENTS,
        UNCOMPRESSED_INODES,
        XATTR_ID,
        XATTR_KEY,
        XATTR_NAME_MAX,
        XATTR_NAMESPACES,
        XATTR_SIZE_MAX,
        XATTR_TABLE,
        XATTR_VALUE_APART,
        Superblock,
        device_number,
    )

__all__ = [
    "BLKDEV",
    "CHRDEV",
    "COMPRESSOR_OPTIONS",
    "DATA_STORED",
    "DEVICE_TAIL",
    "DIR",
    "DIRECTORY_RUN",
    "DIR_ENTRY",
    "DIR_HEADER",
    "DIR_INDEX",
    "DIR_TAIL",
    "DUPLICATES",
    "EXPORTABLE",
    "EXTENDED",
    "FIFO",
    "FRAGMENT",
    "IDS",
    "IDS_MAX",
    "INODE",
    "IPC_TAIL",
    "KIND_MODE",
    "LDEVICE_TAIL",
    "LDIR_TAIL",
    "LIMIT",
    "LIPC_TAIL",
    "LREG_TAIL",
    "LSOCKET",
    "METADATA_SIZE",
    "METADATA_STORED",
    "MODE_KIND",
    "NAME_MAX",
    "NO_FRAGMENT",
    "NO_TABLE",
    "NO_XATTR",
    "NO_XATTRS",
    "PAD",
    "REG",
    "REG_TAIL",
    "REG_WHOLE",
    "SYMLINK",
    "SYMLINK_MAX",
    "SYMLINK_TAIL",
    "UNCOMPRESSED_DATA",
    "UNCOMPRESSED_FRAGMENTS",
    "UNCOMPRESSED_INODES",
    "XATTR_ID",
    "XATTR_KEY",
    "XATTR_NAMESPACES",
    "XATTR_NAME_MAX",
    "XATTR_SIZE_MAX",
    "XATTR_TABLE",
    "XATTR_VALUE_APART",
    "CacheError",
    "Codec",
    "HotFile",
    "ImageRules",
    "LayerError",
    "MetadataReader",
    "MetadataWriter",
    "SqshOptions",
    "SquashfsError",
    "Superblock",
    "decompressor",
    "device_number",
    "find_codec",
    "indexed_table",
]

__getattr__ = lazy_face(
    __name__,
    {
        "compressors": "Codec IDS decompressor find_codec",
        "errors": "CacheError LayerError SquashfsError",
        "metadata": "MetadataReader MetadataWriter indexed_table",
        "options": "HotFile ImageRules SqshOptions",
        "structures": (
            "BLKDEV CHRDEV COMPRESSOR_OPTIONS DATA_STORED DEVICE_TAIL DIR DIRECTORY_RUN "
            "DIR_ENTRY DIR_HEADER DIR_INDEX DIR_TAIL DUPLICATES EXPORTABLE EXTENDED FIFO "
            "FRAGMENT IDS_MAX INODE IPC_TAIL KIND_MODE LDEVICE_TAIL LDIR_TAIL LIMIT LIPC_TAIL "
            "LREG_TAIL LSOCKET METADATA_SIZE METADATA_STORED MODE_KIND NAME_MAX NO_FRAGMENT "
            "NO_TABLE NO_XATTR NO_XATTRS PAD REG REG_TAIL REG_WHOLE SYMLINK SYMLINK_MAX "
            "SYMLINK_TAIL Superblock UNCOMPRESSED_DATA UNCOMPRESSED_FRAGMENTS UNCOMPRESSED_INODES "
            "XATTR_ID XATTR_KEY XATTR_NAMESPACES XATTR_NAME_MAX XATTR_SIZE_MAX XATTR_TABLE "
            "XATTR_VALUE_APART device_number"
        ),
    },
)
