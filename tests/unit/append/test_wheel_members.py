"""What a wheel has compressed goes into a layer as it is: the same files, one gzip."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from slipway.append.wheel_members import LARGE, deflated_pieces, member_pieces
from slipway.core import SlipwayError
from slipway.registry import DeflatedPiece, gzip_stream
from slipway.soci.gzip_spans import GzipSpans


def content(seed: int, size: int) -> bytes:
    """Text, noise and long runs, in turn."""
    source = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        kind = source.randrange(4)
        if kind == 0:
            data += source.randbytes(source.randrange(1, 90_000))
        elif kind == 1:
            data += bytes([source.randrange(256)]) * source.randrange(1, 400_000)
        else:
            words = [source.randbytes(source.randrange(1, 9)) for _ in range(30)]
            data += b" ".join(source.choices(words, k=source.randrange(1, 20_000)))
    return bytes(data[:size])


def deflate(data: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def zip_of(data: bytes, deflated: bytes) -> tuple[io.BytesIO, zipfile.ZipInfo]:
    """A wheel whose member has this deflate form, which no zip program would choose perhaps."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("before", b"x")
        made.writestr("member", deflated)
    info = made.getinfo("member")
    info.compress_type, info.CRC, info.file_size = zipfile.ZIP_DEFLATED, zlib.crc32(data), len(data)
    return archive, info


def pieces_of(data: bytes, deflated: bytes) -> list[DeflatedPiece]:
    return list(deflated_pieces(*zip_of(data, deflated)))


def bits_behind(stream: bytes, bits: int) -> bytes:
    """The unused bits of the last byte, where a stream has some, need not be zero."""
    changed = stream[:-1] + bytes([stream[-1] | bits])
    before, after = zlib.decompressobj(-15), zlib.decompressobj(-15)
    try:
        same = before.decompress(stream) == after.decompress(changed) and after.eof
    except zlib.error:
        same = False
    return changed if same else stream


sizes = st.one_of(
    st.integers(0, 200_000),
    st.sampled_from([LARGE, 65_535, 65_536, 65_537, 131_072, (1 << 20) - 1, 1 << 20, 3_000_000]),
)
strategies = st.sampled_from(
    [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
)


@st.composite
def deflate_streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    data = content(draw(st.integers(0, 1 << 30)), draw(sizes))
    packer: Any
    if draw(st.booleans()):
        packer = zlib.compressobj(
            draw(st.integers(0, 9)), zlib.DEFLATED, -15, draw(st.integers(1, 9)), draw(strategies)
        )
    else:
        packer = zlib_ng.compressobj(draw(st.integers(0, 9)), zlib_ng.DEFLATED, -15)
    flush = draw(st.sampled_from([None, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK]))
    half = draw(st.integers(0, len(data)))
    packed = packer.compress(data[:half])
    packed += packer.flush(flush) if flush is not None else b""
    packed += packer.compress(data[half:]) + packer.flush()
    return data, bits_behind(packed, draw(st.sampled_from([0, 0x80, 0xC0, 0xE0])))


@given(st.lists(st.one_of(deflate_streams(), st.binary(max_size=3000)), min_size=1, max_size=4))
@settings(max_examples=120, deadline=None)
def test_members_and_other_bytes_become_one_gzip_of_all(
    parts: list[tuple[bytes, bytes] | bytes],
) -> None:
    pieces: list[bytes] = []
    for part in parts:
        pieces += [part] if isinstance(part, bytes) else pieces_of(*part)
    whole = b"".join(part if isinstance(part, bytes) else part[0] for part in parts)
    assert b"".join(pieces) == whole
    packed = b"".join(gzip_stream(iter(pieces), lambda _: None))
    reader = zlib.decompressobj(31)
    assert reader.decompress(packed) == whole
    assert reader.eof
    assert reader.unused_data == b""  # one member, which all readers know
    spans = GzipSpans([packed])
    assert b"".join(spans.plain()) == whole
    assert spans.compressed_size == len(packed)


def test_what_is_taken_over_costs_a_few_bytes_and_is_a_wheels_own() -> None:
    data = content(1, 3_000_000)
    deflated = deflate(data, 6)
    pieces = pieces_of(data, deflated)
    taken = b"".join(piece.deflated for piece in pieces)
    assert len(deflated) <= len(taken) <= len(deflated) + 5
    assert max(map(len, pieces)) <= 1 << 20
    different = [at for at, byte in enumerate(deflated[:-1]) if taken[at] != byte]
    assert len(different) == 1  # the mark of the last block


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, 3_000_000])
@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_member_is_read_whatever_its_form_and_size(kind: int, size: int) -> None:
    data, stream = content(size, size), io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as made:
        made.writestr("member", data)
    with zipfile.ZipFile(stream) as archive:
        pieces = list(member_pieces(stream, archive, archive.getinfo("member")))
    assert b"".join(pieces) == data
    taken_over = [isinstance(piece, DeflatedPiece) for piece in pieces]
    assert all(taken_over) == any(taken_over) or not pieces
    assert any(taken_over) == (kind == zipfile.ZIP_DEFLATED and size >= LARGE)


def damages(deflated: bytes) -> Iterator[tuple[str, bytes]]:
    for at in range(0, len(deflated), 97):
        yield f"ends after {at}", deflated[:at]
        for bit in range(8):
            yield (
                f"bit {bit} of {at}",
                b"".join([deflated[:at], bytes([deflated[at] ^ (1 << bit)]), deflated[at + 1 :]]),
            )
    yield "goes on", deflated + b"\0"
    yield "twice", deflated * 2


@pytest.mark.parametrize("size", [3000, 40_000])
def test_whatever_is_damaged_is_told_and_never_another_content(size: int) -> None:
    data = content(7, size)
    deflated = deflate(data, 9)
    for name, damaged in damages(deflated):
        stream, member = zip_of(data, damaged)
        pieces = member_pieces(stream, zipfile.ZipFile(stream), member)
        with pytest.raises(SlipwayError, match="member of the wheel is damaged"):
            raise AssertionError(f"{name}: {len(b''.join(pieces))} bytes were read")


def test_a_member_that_is_not_where_its_wheel_says_is_told() -> None:
    data = content(3, 40_000)
    archive, info = zip_of(data, deflate(data, 6))
    for offset in (info.header_offset + 1, len(archive.getvalue()) - 3):
        info.header_offset = offset
        with pytest.raises(SlipwayError, match="does not begin where"):
            list(deflated_pieces(archive, info))


def test_a_short_wheel_and_false_sizes_are_told() -> None:
    data = content(4, 80_000)
    deflated = deflate(data, 6)
    archive, info = zip_of(data, deflated)
    end = info.header_offset + struct.calcsize("<4s26x") + len("member") + len(deflated)
    with pytest.raises(SlipwayError, match="ends in the middle"):
        list(deflated_pieces(io.BytesIO(archive.getvalue()[: end - 9]), info))
    for size in (0, len(data) - 1, len(data) + 1):
        info.file_size = size
        with pytest.raises(SlipwayError, match="size or checksum"):
            list(deflated_pieces(archive, info))


def test_the_gzip_is_what_the_gzip_program_reads() -> None:
    data = content(5, 2_500_000)
    packed = b"".join(gzip_stream(iter(pieces_of(data, deflate(data, 1))), len))
    assert gzip.decompress(packed) == data
