"""A zTOC: what is in a layer, and where its gzip stream can be entered, as one flatbuffer.

The schema is awslabs/soci-snapshotter:ztoc/fbs/ztoc.fbs; it holds the checkpoints as plain bytes,
whose layout is that of `zinfo_to_blob` in ztoc/compression/gzip_zinfo.c: 32 bits for how many, 64
for the span, then each one packed: compressed offset, offset, bits, window. That is the second
version, which has all of them; the first left out the checkpoint at the stream's beginning, and a
reader tells them apart by the length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slipway.registry import ManifestError
from slipway.soci.gzip_spans import SPAN, Checkpoint, GzipSpans
from slipway.soci.tar_contents import TarEntry, tar_contents

_VERSION = b"0.9"
BUILD_TOOL = "Slipway"


@dataclass(frozen=True)
class Ztoc:
    """What an index says of one layer."""

    compressed_size: int
    size: int
    entries: tuple[TarEntry, ...]
    span: int
    checkpoints: tuple[Checkpoint, ...]
    digests: tuple[str, ...]  # of the spans' compressed bytes

    def encode(self) -> bytes:
        """As AWS's reader takes it. The same layer gives the same bytes."""
        return _encode(self)


def make_ztoc(pieces: Iterable[bytes], span: int = SPAN) -> Ztoc:
    """The zTOC of a gzip layer, which is read once. Raises UnindexableLayerError, LayerError."""
    spans = GzipSpans(pieces, span)
    entries, size = tar_contents(spans.plain())
    return Ztoc(
        spans.compressed_size,
        size,
        tuple(entries),
        span,
        tuple(spans.checkpoints),
        tuple(spans.digests),
    )


class _Builder:
    """A flatbuffer, written from its end as the format's own writers do: what is referred to
    stands behind what refers to it. Places are counted from the end.

    Format: google/flatbuffers:docs/source/internals.md. Strings that are equal are written once.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._strings: dict[bytes, int] = {}

    def put(self, data: bytes, alignment: int = 4) -> int:
        """Bytes whose first one is aligned; their place."""
        place = self.place_of(len(data), alignment)
        self._parts += [bytes(place - self._length - len(data)), data]
        self._length = place
        return place

    def place_of(self, size: int, alignment: int) -> int:
        """Where the next `put` of so many bytes would stand."""
        return self._length + size + -(self._length + size) % alignment

    def string(self, text: bytes) -> int:
        """Its length, its bytes, a zero."""
        if text not in self._strings:
            size = len(text)
            data = struct.pack("<I", size) + text + bytes(4 - size % 4)
            self._strings[text] = self.put(data)
        return self._strings[text]

    def offsets(self, places: Sequence[int]) -> int:
        """A vector of what stands at these places."""
        own = self.place_of(4 * len(places) + 4, 4) - 4
        # Each entry counts from where it stands itself.
        entries = [own - 4 * number - place for number, place in enumerate(places)]
        return self.put(struct.pack(f"<{len(places) + 1}I", len(places), *entries))

    def finish(self, root: int) -> bytes:
        """The whole, beginning with where the root table is."""
        padding = -(self._length + 4) % 8
        self._parts.append(bytes(padding))
        self._length += padding
        self._parts.append(struct.pack("<I", self._length + 4 - root))
        return b"".join(reversed(self._parts))


class _Table:
    """Tables of one shape: fields in the order in which they lie, by slot and format.

    The shape (flatbuffers: vtable) is written once and shared.
    """

    def __init__(self, builder: _Builder, fields: Sequence[tuple[int, str]]) -> None:
        self._builder = builder
        self._offsets = [position for position, (_, kind) in enumerate(fields) if kind == "offset"]
        formats = "".join("I" if kind == "offset" else kind for _, kind in fields)
        self._layout = struct.Struct(f"<i{formats}")
        self._alignment = 8 if "q" in formats else 4
        slots = 1 + max(slot for slot, _ in fields)
        vtable = [0] * slots
        at = 4
        self._positions = []
        for slot, kind in fields:
            vtable[slot] = at
            self._positions.append(at)
            at += struct.calcsize("I" if kind == "offset" else f"<{kind}")
        header = struct.pack(f"<{slots + 2}H", 4 + 2 * slots, at, *vtable)
        self._shape = builder.put(header, 4)

    def put(self, *values: int) -> int:
        """One table; of what it refers to, the places are given."""
        size = self._layout.size
        place = self._builder.place_of(size, self._alignment)
        numbers = list(values)
        for index in self._offsets:
            numbers[index] = place - self._positions[index] - numbers[index]
        return self._builder.put(self._layout.pack(self._shape - place, *numbers), self._alignment)


def _encode(ztoc: Ztoc) -> bytes:
    builder = _Builder()
    xattr = _Table(builder, [(0, "offset"), (1, "offset")])
    # 64-bit fields first, behind two of 32 bits: all lie where they must without padding.
    entry = _Table(
        builder,
        [
            *[(0, "offset")],  # name
            *[(slot, "q") for slot in (2, 3, 5, 11, 12)],  # offset, size, mode, major, minor
            *[(slot, "offset") for slot in (1, 4, 8, 9, 10, 13)],  # type, link, names, time, xattrs
            *[(slot, "I") for slot in (6, 7)],  # uid, gid
        ],
    )
    one = _Table(builder, [(0, "offset")])
    # Slot 0, the compression, has gzip as its default: that is left out, as the format has it.
    info = _Table(builder, [(1, "i"), (2, "offset"), (3, "offset")])
    root = _Table(
        builder, [(0, "offset"), (2, "q"), (3, "q"), (1, "offset"), (4, "offset"), (5, "offset")]
    )
    empty, none = builder.string(b""), builder.offsets([])
    places = []
    for item in ztoc.entries:
        xattrs = [
            xattr.put(builder.string(b"SCHILY.xattr." + key), builder.string(value))
            for key, value in item.xattrs
        ]
        places.append(
            entry.put(
                builder.string(item.name),
                item.offset,
                item.size,
                item.mode,
                item.major,
                item.minor,
                builder.string(item.kind.encode()),
                builder.string(item.link),
                empty,
                empty,
                builder.string(item.time.encode()),
                builder.offsets(xattrs) if xattrs else none,
                item.uid,
                item.gid,
            )
        )
    contents = one.put(builder.offsets(places))
    blob = checkpoint_bytes(ztoc)
    checkpoints = builder.put(struct.pack("<I", len(blob)) + blob + bytes(-len(blob) % 4))
    digests = builder.offsets([builder.string(digest.encode()) for digest in ztoc.digests])
    spans = info.put(len(ztoc.checkpoints) - 1, digests, checkpoints)
    return builder.finish(
        root.put(
            builder.string(_VERSION),
            ztoc.compressed_size,
            ztoc.size,
            builder.string(BUILD_TOOL.encode()),
            contents,
            spans,
        )
    )


def checkpoint_bytes(ztoc: Ztoc) -> bytes:
    """The checkpoints as a zTOC holds them."""
    parts = [struct.pack("<iq", len(ztoc.checkpoints), ztoc.span)]
    for point in ztoc.checkpoints:
        parts.append(struct.pack("<qqB", point.compressed_offset, point.offset, point.bits))
        parts.append(point.window)
    return b"".join(parts)


def described_size(raw: bytes, where: str) -> int:
    """Compressed bytes of the layer that an encoded zTOC is of. Raises ManifestError."""
    try:
        (root,) = struct.unpack_from("<I", raw)
        (shape,) = struct.unpack_from("<i", raw, root)
        (field,) = struct.unpack_from("<H", raw, root - shape + 4 + 2 * 2)
        return int(struct.unpack_from("<q", raw, root + field)[0])
    except struct.error as error:
        raise ManifestError("this is no zTOC", where=where) from error
