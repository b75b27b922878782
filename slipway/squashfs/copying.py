"""Copying the data of an image: shared or copied by the kernel where it can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slipway.squashfs.errors import CacheError
from slipway.squashfs.layout import Copy

_PIECE = 8 << 20
_READ = 1 << 20
_UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def write_at(handle: int, data: bytes, position: int) -> None:
    """All of `data`, whatever a single write takes."""
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, position)
        view, position = view[count:], position + count


def copy_all(
    copies: Sequence[Copy],
    handle: int,
    on_bytes: Callable[[int], None],
) -> None:
    """Do `copies`, which are in the order of their destinations; `on_bytes` gets how far it is."""
    opened: tuple[Path, int] | None = None
    try:
        for copy in copies:
            if isinstance(copy.source, bytes):
                write_at(handle, copy.source[copy.start : copy.start + copy.size], copy.to)
                continue
            if opened is None or opened[0] != copy.source:
                if opened is not None:
                    os.close(opened[1])
                    opened = None
                opened = copy.source, os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC)
            done = 0
            while done < copy.size:
                size = min(copy.size - done, 4 * _PIECE)
                count = _copy(opened[1], handle, size, copy.start + done, copy.to + done)
                if not count:
                    raise _shorter(copy.source)
                done += count
                on_bytes(copy.to + done)
    finally:
        if opened is not None:
            os.close(opened[1])


def read(copy: Copy, first: int, size: int) -> Iterator[bytes | memoryview]:
    """`size` bytes of what is to be copied, from its `first` on. Raises CacheError and OSError."""
    if isinstance(copy.source, bytes):
        yield memoryview(copy.source)[copy.start + first : copy.start + first + size]
        return
    handle = os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        view = memoryview(bytearray(min(_READ, size)))
        done = 0
        while done < size:
            count = os.preadv(handle, [view[: size - done]], copy.start + first + done)
            if not count:
                raise _shorter(copy.source)
            yield view[:count]
            done += count
    finally:
        os.close(handle)


def _shorter(source: Path) -> CacheError:
    return CacheError(
        "a compiled layer became shorter while it was linked",
        where=str(source),
        cure="Run this again: the layer will be compiled anew.",
    )


def _copy(source: int, target: int, size: int, start: int, to: int) -> int:
    """Some of the bytes. copy_file_range shares blocks on btrfs and xfs."""
    try:
        return os.copy_file_range(source, target, size, start, to)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    data = os.pread(source, min(size, _PIECE), start)
    write_at(target, data, to)
    return len(data)
