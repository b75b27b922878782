"""Compiled layers -> one squashfs image: data copied as it is, new tables written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Piece, cpu_count, hash_chunks
from slipway.squashfs.compile import CompiledLayer
from slipway.squashfs.format import ImageRules, SqshOptions
from slipway.squashfs.link import data_copier
from slipway.squashfs.link.data_copier import DataPieces
from slipway.squashfs.link.data_layout import arrange_data
from slipway.squashfs.link.hot_data import find_hot_rows, hot_ranges
from slipway.squashfs.link.inode_writer import InodeWriter
from slipway.squashfs.link.merged_tree import MergedTree
from slipway.squashfs.link.table_writer import head_size, image_tables


@dataclass(frozen=True)
class ImageContents:
    """What an image's tables say of it."""

    size: int
    inodes: int
    entries: int  # paths below the root
    devices_left_out: tuple[bytes, ...]


@dataclass(frozen=True)
class LinkResult(ImageContents):
    """What was written, with its digests, and the (start, end) of what a start reads of it."""

    pieces: tuple[Piece, ...]
    hot: tuple[tuple[int, int], ...]


def link_image(
    layers: Sequence[CompiledLayer],
    output: Path,
    options: SqshOptions,
    rules: ImageRules | None = None,
    *,
    on_bytes: Callable[[int, int], None] | None = None,
    check: Callable[[ImageContents], None] | None = None,
) -> LinkResult:
    """Write the image of `layers`, lowest first, into the existing or new file `output`.

    The layers must have been compiled with `options`. The bytes depend on nothing else. Nothing
    is flushed to the disk. `check` is called in another thread when all is written, while the
    digests are made; what it raises is raised. Raises SquashfsError, LayerError and OSError (a full
    disk).
    """
    rules = rules or ImageRules()
    codec = options.codec()
    head = head_size(codec)
    merged = MergedTree(layers, keep_devices=rules.keep_devices)
    layout = arrange_data(merged, head)

    with _emptied(output) as handle, _Beside() as beside:

        def copied_to(position: int) -> None:
            beside.go_on()
            if on_bytes is not None:
                on_bytes(position, layout.end)

        copied = beside.work.submit(data_copier.copy_data, layout.copies, handle, copied_to)
        data = DataPieces(layout, head, beside.work)
        hot_rows = find_hot_rows(layers, rules.hot)
        tables = InodeWriter(merged, layout, rules, codec).write()
        start, tail = image_tables(tables, layout, rules, options, codec)
        data_copier.write_at(handle, start, 0)
        data_copier.write_at(handle, tail, layout.end)
        size = layout.end + len(tail)
        contents = ImageContents(size, tables.count, tables.entries, tuple(merged.dropped))
        checked = beside.check.submit(check, contents) if check is not None else None
        pieces = (*hash_chunks(start), *data.finish(), *hash_chunks(tail))
        for task in (copied, checked):
            if task is not None:
                task.result()
    ranges = hot_ranges(layers, layout, hot_rows, options.block_size, size) if hot_rows else ()
    return LinkResult(**vars(contents), pieces=pieces, hot=ranges)


class _Beside:
    """Threads beside the one that makes the tables; an exception there ends what they do."""

    def __init__(self) -> None:
        # Copying is the kernel's work and hashing is OpenSSL's: they take the other cores.
        self.work = ThreadPoolExecutor(max(1, cpu_count() - 1))
        self.check = ThreadPoolExecutor(1)
        self._stopped = False

    def go_on(self) -> None:
        """Raise CancelledError where nobody waits for the result any more."""
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
