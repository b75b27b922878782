"""Compiled layers -> one squashfs image: data copied as it is, new tables written.

The parts of the result, in order: superblock, compressor options, data and fragments, inodes,
directories, fragment table, export table, ids, extended attributes.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.squashfs import codecs, copying
from slipway.squashfs.codecs import Codec
from slipway.squashfs.cores import cpu_count
from slipway.squashfs.errors import SquashfsError
from slipway.squashfs.format import (
    COMPRESSOR_OPTIONS,
    DUPLICATES,
    EXPORTABLE,
    FRAGMENT,
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
    Superblock,
)
from slipway.squashfs.inodes import Pairs, Tables, Writer
from slipway.squashfs.layer import Layer
from slipway.squashfs.layout import Layout, arrange
from slipway.squashfs.linkpieces import DataPieces
from slipway.squashfs.merge import Merged
from slipway.squashfs.metadata import MetadataWriter, indexed_table
from slipway.squashfs.options import Options
from slipway.squashfs.pieces import Piece, hashed
from slipway.squashfs.rules import Rules


@dataclass(frozen=True)
class Contents:
    """What an image's tables say of it."""

    size: int
    inodes: int
    entries: int  # paths below the root
    devices_left_out: tuple[bytes, ...]


@dataclass(frozen=True)
class Linked(Contents):
    """What was written, with its digests."""

    pieces: tuple[Piece, ...]


def link(
    layers: Sequence[Layer],
    output: Path,
    options: Options,
    rules: Rules | None = None,
    *,
    on_bytes: Callable[[int, int], None] | None = None,
    check: Callable[[Contents], None] | None = None,
) -> Linked:
    """Write the image of `layers`, lowest first, into the existing or new file `output`.

    The layers must have been compiled with `options`. The bytes depend on nothing else. Nothing
    is flushed to the disk. `check` is called in another thread when all is written, while the
    digests are made; what it raises is raised. Raises SquashfsError, LayerError and OSError (a
    full disk).
    """
    rules = rules or Rules()
    codec = options.codec()
    head = Superblock.SIZE
    if codec.options:
        head += 2 + len(codec.options)
    merged = Merged(layers, keep_devices=rules.keep_devices)
    layout = arrange(merged, head)

    with _emptied(output) as handle, _Beside() as beside:

        def copied_to(position: int) -> None:
            beside.go_on()
            if on_bytes is not None:
                on_bytes(position, layout.end)

        copied = beside.work.submit(copying.copy_all, layout.copies, handle, copied_to)
        data = DataPieces(layout, head, beside.work)
        tables = Writer(merged, layout, rules, codec).write()
        start, tail = _tail(tables, layout, rules, options, codec)
        copying.write_at(handle, start, 0)
        copying.write_at(handle, tail, layout.end)
        size = layout.end + len(tail)
        contents = Contents(size, tables.count, tables.entries, tuple(merged.dropped))
        checked = beside.check.submit(check, contents) if check is not None else None
        pieces = (*hashed(start), *data.finish(), *hashed(tail))
        for task in (copied, checked):
            if task is not None:
                task.result()
    return Linked(**vars(contents), pieces=pieces)


class _Beside:
    """Threads beside the one that makes the tables; an exception there ends what they do."""

    def __init__(self) -> None:
        # Copying is the kernel's work and hashing is OpenSSL's: they take the other cores.
        self.work = ThreadPoolExecutor(max(1, cpu_count() - 1))
        self.check = ThreadPoolExecutor(1)
        self._stopped = False

    def go_on(self) -> None:
        """Raise CancelledError where that is in vain."""
        if self._stopped:
            raise CancelledError

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        for pool in (self.work, self.check):
            pool.shutdown(cancel_futures=self._stopped)


@contextmanager
def _emptied(path: Path) -> Iterator[int]:
    """A handle for writing an empty file.

    ext4 gives a file that was truncated all of its blocks when it is closed, and the caller waits
    (auto_da_alloc in the kernel's Documentation/admin-guide/ext4.rst): an empty one is not.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(handle).st_size:
            os.truncate(handle, 0)
        yield handle
    finally:
        os.close(handle)


def _tail(
    tables: Tables, layout: Layout, rules: Rules, options: Options, codec: Codec
) -> tuple[bytes, bytes]:
    """What stands before the data, and everything after it."""
    tail = bytearray()
    position = layout.end

    def append(data: bytes) -> int:
        here = position + len(tail)
        tail.extend(data)
        return here

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
        compressor=codecs.IDS["gzip" if codec.name == "none" else codec.name],
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
        data = b""
        for name, value in pairs:
            for number, prefix in enumerate(XATTR_NAMESPACES):
                if name.startswith(prefix):
                    rest = name[len(prefix) :]
                    data += XATTR_KEY.pack(number, len(rest)) + rest
                    data += struct.pack("<I", len(value)) + value
                    break
            else:
                raise SquashfsError(f"squashfs has no place for the attribute {name!r}")
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
