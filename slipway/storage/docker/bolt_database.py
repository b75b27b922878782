"""Reading a bolt database as its owner left it: Docker's networks, containerd's namespaces.

The file is a tree of pages of one size (go.etcd.io/bbolt: page.go, bucket.go, db.go). The first
two pages each hold a "meta" record; the one with the higher transaction number whose checksum is
right counts, and names the page of the root bucket. A branch page lists child pages, a leaf page
keys with values; a value may itself be a bucket, whose pages are elsewhere or, for a small one,
inside the value. Pages are never changed in place, so that a copy of the file taken while its owner
works is read as of some moment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from slipway.storage.errors import StorageError

_MAGIC = 0xED0CDAED
# magic, version, page size, flags, root, sequence, free list, high water, transaction, checksum
_META = struct.Struct("<IIIIQQQQQQ")
_ELEMENT = 16  # bytes of a page's header, and of each of its elements
_BRANCH, _LEAF, _BUCKET = 1, 2, 1
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
_DEPTH = 64  # of pages: a whole database has a handful


class BoltDatabase:
    """A bolt database in memory. Raises StorageError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = memoryview(path.read_bytes())
        self._page_size, self._root = self._meta()

    def bucket(self, *names: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the bucket below these names; none where there is no such bucket."""
        page = self._page(self._root)
        try:
            for name in names:
                inner = (v for k, v, is_bucket in self._items(page, 0) if is_bucket and k == name)
                value = next(inner, None)
                if value is None:
                    return
                (root,) = struct.unpack_from("<Q", value)
                page = self._page(root) if root else value[_ELEMENT:]
            yield from ((key, bytes(value)) for key, value, _ in self._items(page, 0))
        except struct.error as error:
            raise self._damaged() from error

    def _meta(self) -> tuple[int, int]:
        best: tuple[int, int, int] | None = None
        for at in (0, *_PAGE_SIZES):
            record = self._data[at + _ELEMENT : at + _ELEMENT + _META.size]
            if len(record) < _META.size:
                break
            magic, _, size, _, root, _, _, _, txid, checksum = _META.unpack(record)
            whole = magic == _MAGIC and checksum == _fnv(record[:-8]) and at in (0, size)
            if whole and (best is None or txid > best[0]):
                best = (txid, size, root)
        if best is None:
            raise self._damaged()
        return best[1], best[2]

    def _page(self, number: int) -> memoryview:
        return self._data[number * self._page_size :]

    def _items(self, page: memoryview, depth: int) -> Iterator[tuple[bytes, memoryview, bool]]:
        flags, count = struct.unpack_from("<HH", page, 8)
        if depth > _DEPTH or not flags & (_BRANCH | _LEAF):
            raise self._damaged()
        for number in range(count):
            at = _ELEMENT * (number + 1)
            if flags & _BRANCH:
                _, _, child = struct.unpack_from("<IIQ", page, at)
                yield from self._items(self._page(child), depth + 1)
            else:
                kind, offset, key, value = struct.unpack_from("<IIII", page, at)
                start = at + offset
                middle, end = start + key, start + key + value
                yield bytes(page[start:middle]), page[middle:end], bool(kind & _BUCKET)

    def _damaged(self) -> StorageError:
        return StorageError("not a bolt database, or a damaged one", where=str(self._path))


def _fnv(data: memoryview) -> int:
    """FNV-1a with 64 bits, bolt's checksum of a meta record."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
