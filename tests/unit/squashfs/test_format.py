"""The bytes of the format, against what the kernel's documentation says they are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.squashfs.format.compressors import (
    LEVELS,
    NAMES,
    Codec,
    CodecError,
    decompressor,
    find_codec,
)
from slipway.squashfs.format.metadata import MetadataReader, MetadataWriter, indexed_table
from slipway.squashfs.format.structures import (
    METADATA_SIZE,
    METADATA_STORED,
    Superblock,
    device_number,
    device_parts,
)
from slipway.squashfs.link.directory_writer import DirectoryWriter

STORED = Codec("none", lambda data: None, lambda data, limit: bytes(data))


def superblock() -> Superblock:
    return Superblock(
        inodes=7,
        mtime=1_700_000_000,
        block_size=1 << 17,
        fragments=2,
        compressor=6,
        flags=0x80,
        ids=3,
        root=0x1234_0056,
        bytes_used=0x1_0000_0001,
        id_table=1,
        xattr_table=2,
        inode_table=3,
        directory_table=4,
        fragment_table=5,
        export_table=6,
    )


def test_a_superblock_has_its_fields_where_the_kernel_reads_them() -> None:
    raw = superblock().pack()
    assert len(raw) == 96
    assert raw[:4] == b"hsqs"
    assert struct.unpack_from("<I", raw, 4) == (7,)  # inodes
    assert struct.unpack_from("<I", raw, 12) == (1 << 17,)  # block_size
    assert struct.unpack_from("<HH", raw, 20) == (6, 17)  # compression, block_log
    assert struct.unpack_from("<HH", raw, 28) == (4, 0)  # s_major, s_minor
    assert struct.unpack_from("<QQ", raw, 32) == (0x1234_0056, 0x1_0000_0001)
    assert struct.unpack_from("<6Q", raw, 48) == (1, 2, 3, 4, 5, 6)


def test_a_superblock_is_read_back_as_it_was_written() -> None:
    assert Superblock.unpack(superblock().pack()) == superblock()


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"sqsh", "no squashfs superblock"),
        (28, b"\x03\x00", r"squashfs 3\.0"),
        (22, b"\x10\x00", "block size"),
        (22, b"\xff\xff", "block size"),
        (12, b"\0\0\0\0", "block size"),
    ],
)
def test_a_superblock_that_is_not_squashfs_4_is_refused(
    at: int, value: bytes, message: str
) -> None:
    raw = bytearray(superblock().pack())
    raw[at : at + len(value)] = value
    with pytest.raises(ValueError, match=message):
        Superblock.unpack(bytes(raw))


@given(st.integers(0, (1 << 12) - 1), st.integers(0, (1 << 20) - 1))
def test_device_numbers_are_packed_and_unpacked(major: int, minor: int) -> None:
    assert device_parts(device_number(major, minor)) == (major, minor)


def test_device_numbers_are_the_kernels() -> None:
    # new_encode_dev (include/linux/kdev_t.h)
    assert device_number(1, 3) == 0x0103
    assert device_number(259, 0x12345) == (0x45 | (259 << 8) | (0x12300 << 12))


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "none"])
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=9).map(lambda some: some * 900)))
def test_what_a_codec_compresses_it_decompresses(name: str, data: bytes) -> None:
    level = 1 if LEVELS[name] else None
    used = find_codec(name, level, 1 << 17)
    packed = used.compress(data or b"x")
    assert packed is not None
    number = next(number for number, known in NAMES.items() if known == name)
    assert decompressor(number)(packed, 1 << 17) == (data or b"x")


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "none"])
def test_more_than_a_block_may_hold_is_not_decompressed(name: str) -> None:
    used = find_codec(name, 1 if LEVELS[name] else None, 1 << 17)
    packed = used.compress(bytes(100_000))
    assert packed is not None
    with pytest.raises(CodecError):
        used.decompress(packed, 8192)


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "none"])
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_an_error_or_short_never_a_crash(name: str, garbage: bytes) -> None:
    used = find_codec(name, 1 if LEVELS[name] else None, 1 << 17)
    try:
        size = len(used.decompress(garbage, 4096))
    except CodecError:
        size = 0
    assert size <= 4096


def test_an_unknown_compressor_is_named() -> None:
    with pytest.raises(CodecError, match="compressor 99"):
        decompressor(99)


@given(st.lists(st.binary(max_size=9000), max_size=6))
def test_metadata_is_read_back_from_any_position(pieces: list[bytes]) -> None:
    writer = MetadataWriter(find_codec("zstd", 1, 1 << 17))
    places = []
    for piece in pieces:
        places.append(writer.position())
        writer.write(piece)
    raw = writer.finish()
    unzstd = decompressor(6)
    reader = MetadataReader(lambda at, size: raw[at : at + size], unzstd)
    for (block, offset), piece in zip(places, pieces, strict=True):
        if piece:
            assert reader.read(block, offset, len(piece))[0] == piece


def test_a_metadata_block_that_does_not_shrink_is_stored() -> None:
    writer = MetadataWriter(STORED)
    writer.write(b"abc")
    assert writer.finish() == struct.pack("<H", 3 | METADATA_STORED) + b"abc"


def test_a_table_lists_where_its_blocks_are() -> None:
    raw, start = indexed_table(STORED, bytes(METADATA_SIZE + 1), 1000)
    assert start == 1000 + 2 + METADATA_SIZE + 2 + 1
    assert raw[start - 1000 :] == struct.pack("<QQ", 1000, 1000 + 2 + METADATA_SIZE)


def runs(raw: bytes) -> list[tuple[int, int, int]]:
    """Headers of an uncompressed listing."""
    found, at = [], 0
    while at < len(raw):
        count, block, base = struct.unpack_from("<III", raw, at)
        found.append((count + 1, block, base))
        at += 12
        for _ in range(count + 1):
            (size,) = struct.unpack_from("<H", raw, at + 6)
            at += 8 + size + 1
    return found


def listing(entries: list[tuple[bytes, int, int]]) -> tuple[bytes, list[bytes]]:
    writer = MetadataWriter(STORED)
    made = DirectoryWriter(writer)
    for name, reference, number in entries:
        made.add(name, reference, number, 2)
    _, _, size, index = made.finish()
    stored = writer.finish()
    raw, at = b"", 0
    while at < len(stored):
        (word,) = struct.unpack_from("<H", stored, at)
        length = word & ~METADATA_STORED
        raw += stored[at + 2 : at + 2 + length]
        at += 2 + length
    assert len(raw) == size
    return raw, index


def test_a_run_of_names_ends_with_its_inode_block_at_256_names_and_at_far_numbers() -> None:
    same_block = [(b"%04d" % number, 5, number + 1) for number in range(300)]
    assert runs(listing(same_block)[0]) == [(256, 0, 1), (44, 0, 257)]
    other_block = [(b"a", 5, 1), (b"b", (8194 << 16) | 5, 2), (b"c", (8194 << 16) | 9, 3)]
    assert runs(listing(other_block)[0]) == [(1, 0, 1), (2, 8194, 2)]
    far = [(b"a", 5, 40_000), (b"b", 5, 40_000 - 32_767), (b"c", 5, 40_000 + 32_768)]
    assert runs(listing(far)[0]) == [(2, 0, 40_000), (1, 0, 72_768)]


def test_a_large_listing_is_indexed_by_the_first_name_in_each_block() -> None:
    entries = [(b"%05d" % number + b"x" * 200, 5, number + 1) for number in range(200)]
    raw, index = listing(entries)
    last = 0
    for entry in index:
        position, start, size = struct.unpack_from("<III", entry)
        assert last // METADATA_SIZE < position // METADATA_SIZE
        assert position - last <= 2 * METADATA_SIZE  # what the kernel has to read at most
        assert start == position // METADATA_SIZE * (METADATA_SIZE + 2)
        name = entry[12:]
        assert len(name) == size + 1
        at = position + 12  # after the run's header
        assert raw[at + 8 : at + 8 + len(name)] == name
        last = position
    assert len(raw) - last <= 2 * METADATA_SIZE
