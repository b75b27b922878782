"""A bolt database read as its owner left it: containerd's images, Docker's networks.

The file is a tree of pages of one size (etcd-io/bbolt: page.go, bucket.go, db.go), each a head of
id, flags, count and overflow, then its elements. The first two pages take turns in naming the root;
the one with the higher transaction number whose checksum is right counts. A branch page lists child
pages, a leaf page keys with values; a value may itself be a bucket, whose pages are elsewhere or,
for a small one, inside the value.

An owner at work never changes pages that the newest root leads to, but may use them again after the
next one is written. So what is read is good if the same root is the newest before and after.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from slipway.core import SlipwayError

_T = TypeVar("_T")
_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
# magic, version, page size, flags, root, sequence, free list, high water, transaction, checksum
_META = struct.Struct("<IIIIQQQQQQ")
_BRANCH_FLAG, _LEAF_FLAG, _BUCKET_FLAG = 1, 2, 1
_BRANCH = struct.Struct("<IIQ")  # position, key size, page
_LEAF = struct.Struct("<IIII")  # flags, position, key size, value size
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
_DEPTH_MAX = 64  # of pages: a whole database has a handful
_OVERFLOW_MAX = 1 << 20
_TRIES = 5


class BoltFileError(SlipwayError):
    """The file is not a bolt database, or was changed again and again while it was read."""


class BoltFile:
    """A bolt database, by the names of buckets. Raises BoltFileError and OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look_up(self, *keys: bytes) -> bytes | None:
        """The value under buckets and a key; None where one of them is missing."""
        return self._read(lambda pages: pages.look_up(keys))

    def bucket(self, *names: bytes) -> list[tuple[bytes, bytes]]:
        """Keys and values of the bucket below these names; none where there is no such bucket."""
        return self._read(lambda pages: pages.bucket(names))

    def _read(self, read: Callable[[_Pages], _T]) -> _T:
        for _ in range(_TRIES):
            with self._path.open("rb") as stream, suppress(struct.error, _OddPageError):
                before = _newest_meta(stream)
                result = read(_Pages(stream, page_size=before[2], root=before[4]))
                if _newest_meta(stream) == before:
                    return result
        raise BoltFileError("not a bolt database, or a damaged one", where=str(self._path))


class _OddPageError(ValueError):
    """A page as no owner writes it, or one that is written just now."""


def _newest_meta(stream: BinaryIO) -> tuple[int, ...]:
    """The meta page with the highest transaction: its fields."""
    stream.seek(0)
    data = stream.read(2 * _PAGE_SIZES[-1])
    metas = []
    for start in (0, *_PAGE_SIZES):
        record = data[start + _PAGE.size : start + _PAGE.size + _META.size]
        if len(record) < _META.size:
            break
        meta = _META.unpack(record)
        right = meta[:2] == (_MAGIC, _VERSION) and meta[9] == bolt_checksum(record[:-8])
        if right and meta[2] in _PAGE_SIZES and start in (0, meta[2]):
            metas.append(meta)
    if not metas:
        raise _OddPageError
    return max(metas, key=lambda meta: meta[8])


def bolt_checksum(data: bytes) -> int:
    """FNV-1a of 64 bits, which a meta page has of itself."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return value


class _Pages:
    """The tree of one transaction."""

    def __init__(self, stream: BinaryIO, *, page_size: int, root: int) -> None:
        self._stream = stream
        self._page_size = page_size
        self._root = root

    def look_up(self, keys: tuple[bytes, ...]) -> bytes | None:
        *names, key = keys
        page = self._bucket_page(tuple(names))
        item = self._find(page, key) if page is not None else None
        return item[1] if item and not item[0] else None

    def bucket(self, names: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
        page = self._bucket_page(names)
        return list(self._items(page, 0)) if page is not None else []

    def _bucket_page(self, names: tuple[bytes, ...]) -> bytes | None:
        """The first page of a bucket; an inline one has its only page in its own value."""
        page = self._page(self._root)
        for name in names:
            item = self._find(page, name)
            if item is None or not item[0]:
                return None
            root, _ = _BUCKET.unpack_from(item[1])
            page = self._page(root) if root else item[1][_BUCKET.size :]
        return page

    def _page(self, number: int) -> bytes:
        self._stream.seek(number * self._page_size)
        data = self._stream.read(self._page_size)
        overflow = _PAGE.unpack_from(data)[3]
        if overflow > _OVERFLOW_MAX:
            raise _OddPageError
        return data + self._stream.read(overflow * self._page_size)

    def _find(self, page: bytes, key: bytes) -> tuple[bool, bytes] | None:
        """Whether a key's value is a bucket, and the value."""
        for _ in range(_DEPTH_MAX):
            if _is_leaf(page):
                items = _leaf_items(page)
                return next((item[1:] for item in items if item[0] == key), None)
            following = None
            for name, child in _children(page):
                if following is not None and name > key:
                    break
                following = child
            if following is None:
                raise _OddPageError
            page = self._page(following)
        raise _OddPageError

    def _items(self, page: bytes, depth: int) -> Iterator[tuple[bytes, bytes]]:
        if depth > _DEPTH_MAX:
            raise _OddPageError
        if _is_leaf(page):
            yield from ((key, value) for key, _, value in _leaf_items(page))
            return
        for _, child in _children(page):
            yield from self._items(self._page(child), depth + 1)


def _is_leaf(page: bytes) -> bool:
    flags = _PAGE.unpack_from(page)[1]
    if flags not in (_BRANCH_FLAG, _LEAF_FLAG):
        raise _OddPageError
    return bool(flags == _LEAF_FLAG)


def _children(page: bytes) -> Iterator[tuple[bytes, int]]:
    """The first key of each page below a branch page, and the page."""
    for number in range(_PAGE.unpack_from(page)[2]):
        start = _PAGE.size + number * _BRANCH.size
        position, size, child = _BRANCH.unpack_from(page, start)
        yield _part(page, start + position, size), child


def _leaf_items(page: bytes) -> Iterator[tuple[bytes, bool, bytes]]:
    for number in range(_PAGE.unpack_from(page)[2]):
        start = _PAGE.size + number * _LEAF.size
        flags, position, key_size, value_size = _LEAF.unpack_from(page, start)
        key = _part(page, start + position, key_size)
        value = _part(page, start + position + key_size, value_size)
        yield key, bool(flags & _BUCKET_FLAG), value


def _part(page: bytes, start: int, size: int) -> bytes:
    part = page[start : start + size]
    if len(part) < size:
        raise _OddPageError
    return part
