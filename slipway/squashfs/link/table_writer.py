"""What stands around the data of an image: the superblock before, the tables after it.

The parts, in order: superblock, compressor options, data and fragments, inodes, directories,
fragment table, export table, ids, extended attributes.
"""

from __future__ import annotations

import struct
from array import array

from slipway.squashfs.format import (
    COMPRESSOR_OPTIONS,
    DUPLICATES,
    EXPORTABLE,
    FRAGMENT,
    IDS,
    METADATA_STORED,
    NO_TABLE,
    NO_XATTRS,
    PAD,
    UNCOMPRESSED_DATA,
    UNCOMPRESSED_FRAGMENTS,
    UNCOMPRESSED_INODES,
    XATTR_ID,
    XATTR_KEY,
    XATTR_NAMESPACES,
    XATTR_TABLE,
    Codec,
    ImageRules,
    MetadataWriter,
    SqshOptions,
    SquashfsError,
    Superblock,
    indexed_table,
)
from slipway.squashfs.link.data_layout import DataLayout
from slipway.squashfs.link.inode_writer import InodeTables, Pairs


def head_size(codec: Codec) -> int:
    """Bytes before the data."""
    return Superblock.SIZE + (2 + len(codec.options) if codec.options else 0)


def image_tables(
    tables: InodeTables,
    layout: DataLayout,
    rules: ImageRules,
    options: SqshOptions,
    codec: Codec,
) -> tuple[bytes, bytes]:
    """What stands before the data, and everything after it. Raises SquashfsError."""
    tail = bytearray()
    position = layout.end

    def append(data: bytes) -> int:
        reference = position + len(tail)
        tail.extend(data)
        return reference

    def append_table(data: bytes) -> int:
        table, start = indexed_table(codec, data, position + len(tail))
        tail.extend(table)
        return start

    inode_table = append(tables.inodes)
    directory_table = append(tables.directories)
    fragments = b"".join(FRAGMENT.pack(start, word, 0) for start, word in layout.table)
    fragment_table = append_table(fragments)
    export_table = append_table(_little(tables.references).tobytes())
    id_table = append_table(struct.pack(f"<{len(tables.ids)}I", *tables.ids))
    xattr_table = NO_TABLE
    if tables.xattrs:
        data, start = _xattr_table(tables.xattrs, codec, position + len(tail))
        append(data)
        xattr_table = start
    used = position + len(tail)
    append(bytes(-used % PAD))
    flags = EXPORTABLE | DUPLICATES
    flags |= 0 if tables.xattrs else NO_XATTRS
    flags |= COMPRESSOR_OPTIONS if codec.options else 0
    if codec.name == "none":
        flags |= UNCOMPRESSED_INODES | UNCOMPRESSED_DATA | UNCOMPRESSED_FRAGMENTS
    superblock = Superblock(
        inodes=tables.count,
        mtime=rules.mtime,
        block_size=options.block_size,
        fragments=len(layout.table),
        compressor=IDS["gzip" if codec.name == "none" else codec.name],
        flags=flags,
        ids=len(tables.ids),
        root=tables.root,
        bytes_used=used,
        id_table=id_table,
        xattr_table=xattr_table,
        inode_table=inode_table,
        directory_table=directory_table,
        fragment_table=fragment_table,
        export_table=export_table,
    )
    head = superblock.pack()
    if codec.options:
        head += struct.pack("<H", len(codec.options) | METADATA_STORED) + codec.options
    return head, bytes(tail)


def _xattr_table(sets: list[Pairs], codec: Codec, position: int) -> tuple[bytes, int]:
    """Attribute sets: the pairs, the table of sets, and where its head is."""
    writer = MetadataWriter(codec)
    ids = []
    for pairs in sets:
        block, offset = writer.position()
        records = []
        for name, value in pairs:
            for number, prefix in enumerate(XATTR_NAMESPACES):
                if name.startswith(prefix):
                    rest = name[len(prefix) :]
                    records += [XATTR_KEY.pack(number, len(rest)), rest]
                    records += [struct.pack("<I", len(value)), value]
                    break
            else:
                raise SquashfsError(f"squashfs has no place for the attribute {name!r}")
        data = b"".join(records)
        writer.write(data)
        ids.append(XATTR_ID.pack(block << 16 | offset, len(pairs), len(data)))
    blocks = writer.finish()
    after = position + len(blocks)
    data, start = indexed_table(codec, b"".join(ids), after)
    # The head goes between the blocks of the table and the list of where they are.
    at = start - after
    return blocks + data[:at] + XATTR_TABLE.pack(position, len(ids), 0) + data[at:], start


def _little(values: array[int]) -> array[int]:
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values = values[:]
        values.byteswap()
    return values
