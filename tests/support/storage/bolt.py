"""A bolt database written for a test: buckets as nested dictionaries, small ones inside values."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Union

from slipway.engine import bolt_checksum

Bucket = Mapping[bytes, Union[bytes, "Bucket"]]
PAGE = 4096


class _Pages:
    def __init__(self, *, inline: bool, leaf: int) -> None:
        self.pages: list[bytes] = [b"", b"", b""]  # two metas and the free list
        self.inline = inline
        self.leaf = leaf  # keys in a leaf page, at most

    def add(self, page: bytes) -> int:
        number = len(self.pages)
        for start in range(0, len(page), PAGE):
            self.pages.append(page[start : start + PAGE].ljust(PAGE, b"\0"))
        return number

    def value(self, content: bytes | Bucket) -> tuple[int, bytes]:
        if isinstance(content, bytes):
            return 0, content
        if self.inline and not any(not isinstance(v, bytes) for v in content.values()):
            return 1, struct.pack("<QQ", 0, 0) + self.leaf_page(content)
        return 1, struct.pack("<QQ", self.tree(content), 0)

    def leaf_page(self, bucket: Bucket) -> bytes:
        elements, data = b"", b""
        items = [(key, *self.value(content)) for key, content in sorted(bucket.items())]
        for number, (key, kind, value) in enumerate(items):
            offset = 16 * (len(items) - number) + len(data)
            elements += struct.pack("<IIII", kind, offset, len(key), len(value))
            data += key + value
        return struct.pack("<QHHI", 0, 2, len(items), 0) + elements + data

    def tree(self, bucket: Bucket) -> int:
        items = sorted(bucket.items())
        parts = [dict(items[at : at + self.leaf]) for at in range(0, len(items), self.leaf)] or [{}]
        numbers = [self.add(self.leaf_page(part)) for part in parts]
        if len(numbers) == 1:
            return numbers[0]
        elements, data = b"", b""
        for at, (number, part) in enumerate(zip(numbers, parts, strict=True)):
            key = min(part)
            elements += struct.pack("<IIQ", 16 * (len(parts) - at) + len(data), len(key), number)
            data += key
        return self.add(struct.pack("<QHHI", 0, 1, len(parts), 0) + elements + data)


def meta(root: int, txid: int) -> bytes:
    """A meta page."""
    record = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, 99, txid)
    return struct.pack("<QHHI", 0, 4, 0, 0) + record + struct.pack("<Q", bolt_checksum(record))


def write_bolt(path: Path, content: Bucket, *, inline: bool = True, leaf: int = 1000) -> None:
    """Write a database; its first meta page is older and names nothing."""
    pages = _Pages(inline=inline, leaf=leaf)
    root = pages.tree(content)
    pages.pages[0] = meta(2, 6).ljust(PAGE, b"\0")
    pages.pages[1] = meta(root, 7).ljust(PAGE, b"\0")
    pages.pages[2] = struct.pack("<QHHI", 2, 16, 0, 0).ljust(PAGE, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pages.pages))
