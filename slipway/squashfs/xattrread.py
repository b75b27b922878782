"""Extended attributes, read."""

from __future__ import annotations

import struct

from slipway.squashfs.format import XATTR_KEY, XATTR_NAMESPACES, XATTR_VALUE_APART
from slipway.squashfs.metadata import MetadataReader

_VALUE_MAX = 1 << 16  # the kernel's XATTR_SIZE_MAX


class _Cursor:
    """Reads one structure after the other."""

    def __init__(self, metadata: MetadataReader, start: int, reference: int) -> None:
        self._metadata = metadata
        self._block, self._offset = start + (reference >> 16), reference & 0xFFFF

    def take(self, size: int) -> bytes:
        data, self._block, self._offset = self._metadata.read(self._block, self._offset, size)
        return data

    def value(self) -> bytes:
        (size,) = struct.unpack("<I", self.take(4))
        if size > _VALUE_MAX:
            raise ValueError(f"an attribute of {size} bytes")
        return self.take(size)


def read_pairs(
    metadata: MetadataReader, start: int, reference: int, count: int
) -> dict[bytes, bytes]:
    """The `count` pairs at a reference; `start` is where the pairs' blocks begin.

    Raises ValueError for what cannot be pairs.
    """
    cursor = _Cursor(metadata, start, reference)
    found = {}
    for _ in range(count):
        kind, length = XATTR_KEY.unpack(cursor.take(XATTR_KEY.size))
        space = kind & ~XATTR_VALUE_APART
        if space >= len(XATTR_NAMESPACES):
            raise ValueError(f"attribute namespace {space}")
        name = XATTR_NAMESPACES[space] + cursor.take(length)
        value = cursor.value()
        if kind & XATTR_VALUE_APART:
            (apart,) = struct.unpack("<Q", value)
            value = _Cursor(metadata, start, apart).value()
        found[name] = value
    return found
