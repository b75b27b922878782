"""A reader of zTOCs, written from the schema and from the documented layout of checkpoints.

It shares no code with what writes them. Sources: google/flatbuffers:docs (internals), awslabs/
soci-snapshotter: ztoc/fbs/ztoc.fbs, ztoc/compression/gzip_zinfo.c (`blob_to_zinfo`,
`extract_data_from_buffer`), fs/span-manager. Checkpoints of versions 1 and 2 are read. Python's
zlib module enters a stream at whole bytes only, so the library is called.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 32768
POINT = 17 + WINDOW


class FlatTable:
    """One table of a flatbuffer."""

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw, self.at = raw, at
        self.shape = at - struct.unpack_from("<i", raw, at)[0]

    @classmethod
    def root(cls, raw: bytes) -> FlatTable:
        return cls(raw, struct.unpack_from("<I", raw)[0])

    def _field(self, slot: int) -> int:
        (size,) = struct.unpack_from("<H", self.raw, self.shape)
        if 4 + 2 * slot >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self.raw, self.shape + 4 + 2 * slot)
        return self.at + offset if offset else 0

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        at = self._field(slot)
        assert at % struct.calcsize(kind) == 0, "a field that is not aligned"
        return int(struct.unpack_from(f"<{kind}", self.raw, at)[0]) if at else default

    def _target(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self.raw, at)[0])

    def table(self, slot: int) -> FlatTable:
        return FlatTable(self.raw, self._target(self._field(slot)))

    def data(self, slot: int) -> bytes:
        at = self._field(slot)
        return self._bytes(self._target(at)) if at else b""

    def _bytes(self, at: int) -> bytes:
        (size,) = struct.unpack_from("<I", self.raw, at)
        return self.raw[at + 4 : at + 4 + size]

    def _places(self, slot: int) -> list[int]:
        at = self._field(slot)
        if not at:
            return []
        vector = self._target(at)
        (count,) = struct.unpack_from("<I", self.raw, vector)
        return [self._target(vector + 4 + 4 * number) for number in range(count)]

    def tables(self, slot: int) -> list[FlatTable]:
        return [FlatTable(self.raw, at) for at in self._places(slot)]

    def strings(self, slot: int) -> list[bytes]:
        places = self._places(slot)
        for at in places:
            (size,) = struct.unpack_from("<I", self.raw, at)
            assert self.raw[at + 4 + size] == 0, "a string without its zero"
        return [self._bytes(at) for at in places]


@dataclass(frozen=True)
class TocFile:
    name: bytes
    type: str
    offset: int
    size: int
    link: bytes
    mode: int
    uid: int
    gid: int
    time: str
    xattrs: dict[bytes, bytes]


@dataclass(frozen=True)
class Point:
    compressed: int
    offset: int
    bits: int
    window: bytes


class ZtocReader:
    """What a zTOC says, and files of its layer by ranges alone."""

    def __init__(self, raw: bytes) -> None:
        root = FlatTable.root(raw)
        self.version, self.tool = root.data(0).decode(), root.data(1).decode()
        self.compressed_size, self.size = root.number(2, "q"), root.number(3, "q")
        self.files = [_file(table) for table in root.table(4).tables(0)]
        info = root.table(5)
        assert info.number(0, "b", 1) == 1, "not gzip"
        self.digests = [text.decode() for text in info.strings(2)]
        self.span, self.points = _points(info.data(3))
        assert info.number(1, "i") == len(self.points) - 1 == len(self.digests) - 1
        self._check()

    def _check(self) -> None:
        """What AWS's own reader refuses: ErrNonMonotonicCheckpoints, ErrInvalidTOCEntry."""
        for before, after in zip(self.points, self.points[1:], strict=False):
            assert before.compressed < after.compressed
            assert before.offset < after.offset
        at = 0
        for file in self.files:
            assert file.offset >= at + 512
            at = file.offset + file.size + -file.size % 512

    def span_range(self, number: int) -> tuple[int, int]:
        """First byte and end of a span in the blob."""
        point, last = self.points[number], number == len(self.points) - 1
        end = self.compressed_size if last else self.points[number + 1].compressed
        return point.compressed - bool(point.bits), end

    def read(self, file: TocFile, fetch: Callable[[int, int], bytes]) -> bytes:
        """A file's content; `fetch` gets first byte and end of what is needed of the blob."""
        end = file.offset + file.size
        numbers = [
            number
            for number, point in enumerate(self.points)
            if point.offset < end
            and (number + 1 == len(self.points) or self.points[number + 1].offset > file.offset)
        ]
        plain = b"".join(self._unpack(number, fetch) for number in numbers)
        skip = file.offset - self.points[numbers[0]].offset
        return plain[skip : skip + file.size]

    def _unpack(self, number: int, fetch: Callable[[int, int], bytes]) -> bytes:
        start, end = self.span_range(number)
        data = fetch(start, end)
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == self.digests[number]
        last = number == len(self.points) - 1
        point = self.points[number]
        upto = self.size if last else self.points[number + 1].offset
        return _inflate(data, point, upto - point.offset)


def _inflate(data: bytes, point: Point, size: int) -> bytes:
    """The first `size` plain bytes behind a checkpoint."""
    library = ctypes.CDLL("libz.so.1")
    raw = ctypes.create_string_buffer(112)  # z_stream on 64 bits
    plain = ctypes.create_string_buffer(size or 1)
    source = ctypes.create_string_buffer(data, len(data))
    assert library.inflateInit2_(raw, -15, b"1.2.11", 112) == 0
    skip = 0
    if point.bits:
        value = data[0] >> (8 - point.bits)
        assert library.inflatePrime(raw, point.bits, value) == 0
        skip = 1
    assert library.inflateSetDictionary(raw, point.window, WINDOW) == 0
    struct.pack_into("<QI", raw, 0, ctypes.addressof(source) + skip, len(data) - skip)
    struct.pack_into("<QI", raw, 24, ctypes.addressof(plain), size)
    members = 0
    while struct.unpack_from("<I", raw, 32)[0]:
        status = library.inflate(raw, 0)
        if status == 1:  # another member; the sum of the first one is still there
            at, left = struct.unpack_from("<QI", raw)
            trailer = 8 if not members else 0
            members += 1
            assert library.inflateReset2(raw, 31) == 0
            struct.pack_into("<QI", raw, 0, at + trailer, left - trailer)
        else:
            assert status == 0, f"zlib says {status}"
    library.inflateEnd(raw)
    return plain.raw[:size]


def _file(table: FlatTable) -> TocFile:
    pairs = {entry.data(0): entry.data(1) for entry in table.tables(13)}
    return TocFile(
        table.data(0),
        table.data(1).decode(),
        table.number(2, "q"),
        table.number(3, "q"),
        table.data(4),
        table.number(5, "q"),
        table.number(6, "I"),
        table.number(7, "I"),
        table.data(10).decode(),
        pairs,
    )


def _points(blob: bytes) -> tuple[int, list[Point]]:
    count, span = struct.unpack_from("<iq", blob)
    packed = [blob[at : at + POINT] for at in range(12, len(blob), POINT)]
    points = [Point(*struct.unpack("<qqB32768s", one)) for one in packed]
    if len(points) == count - 1:  # version 1 leaves the first one out
        points.insert(0, Point(10, 0, 0, bytes(WINDOW)))
    assert len(points) == count
    assert all(len(point.window) == WINDOW for point in points)
    return span, points
