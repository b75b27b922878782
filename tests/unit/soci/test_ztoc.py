"""zTOCs of layers, read by a reader that was written from AWS's schema and layouts."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator

import pytest

from slipway.registry import ManifestError
from slipway.soci.tar_contents import UnindexableLayerError
from slipway.soci.ztoc import described_size, make_ztoc
from slipway.squashfs import LayerError
from tests.support.ztoc_reader import ZtocReader

SPAN = 64 << 10


def text(noise: random.Random, size: int) -> bytes:
    """Compresses about threefold, with matches that reach far back."""
    words = [noise.randbytes(6) for _ in range(400)]
    return b"".join(noise.choices(words, k=size // 6 + 1))[:size]


def archive(seed: int = 1, files: int = 40) -> bytes:
    """A tar as pax, with all kinds of members that a layer has."""
    noise = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("opt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for number in range(files):
            member = tarfile.TarInfo(f"opt/{'long/' * (number % 40)}{number}")
            member.size = noise.choice([0, 1, 511, 512, 513, 9_000, 200_000])
            member.mode, member.uid, member.gid = 0o4755, number, 7_000_000
            member.mtime = 1_700_000_000
            member.pax_headers = {
                "mtime": "1700000000.25",
                "SCHILY.xattr.user.k": "é\udcff\n",
            }
            tar.addfile(member, io.BytesIO(text(noise, member.size)))
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(f"opt/{name}")
            link.type, link.linkname = kind, "opt/1"
            tar.addfile(link)
    return buffer.getvalue()


def members(packed: bytes, parts: int) -> bytes:
    """One member after the other, as pigz -i and mgzip write."""
    step = len(packed) // parts + 1
    cut = [packed[at : at + step] for at in range(0, len(packed), step)]
    return b"".join(gzip.compress(part, 6, mtime=0) for part in cut)


def apart(plain: bytes) -> bytes:
    """As our own layers: one member, blocks that end at whole bytes."""
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    pieces = [
        stream.compress(plain[at : at + 50_000]) + stream.flush(zlib.Z_FULL_FLUSH)
        for at in range(0, len(plain), 50_000)
    ]
    return b"".join([*pieces, stream.flush()])


def pieces(blob: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(blob), size):
        yield blob[at : at + size]


PLAIN = archive()
FORMS = {
    "level 1": gzip.compress(PLAIN, 1, mtime=0),
    "level 9": gzip.compress(PLAIN, 9, mtime=0),
    "stored": gzip.compress(PLAIN, 0, mtime=0),
    "a name in the header": b"\x1f\x8b\x08\x08" + bytes(6) + b"layer.tar\0"
    + gzip.compress(PLAIN, 6, mtime=0)[10:],
    "members": members(PLAIN, 7),
    "zeros behind": gzip.compress(PLAIN, 6, mtime=0) + bytes(700),
    "apart": apart(PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1_000_003, 4096])
def test_every_file_is_read_by_ranges_alone(form: str, size: int) -> None:
    blob = FORMS[form]
    reader = ZtocReader(make_ztoc(pieces(blob, size), SPAN).encode())
    assert (reader.version, reader.compressed_size, reader.span) == ("0.9", len(blob), SPAN)
    assert len(reader.points) > 5
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as tar:
        listed = tar.getmembers()
        assert [file.name.decode() for file in reader.files if file.type == "reg"] == [
            member.name for member in listed if member.isreg()
        ]
        for file, member in zip(reader.files, listed, strict=True):
            assert (file.offset, file.mode, file.uid) == (
                member.offset_data,
                member.mode,
                member.uid,
            )
            if member.isreg():
                stream = tar.extractfile(member)
                assert stream
                assert reader.read(file, lambda start, end: blob[start:end]) == stream.read()


def test_a_member_is_told_as_its_header_has_it() -> None:
    reader = ZtocReader(make_ztoc([FORMS["level 9"]]).encode())
    folder, file, *_, soft, hard = reader.files
    assert (folder.name, folder.type, folder.size) == (b"opt/", "dir", 0)
    assert (file.time, file.gid, file.mode) == ("2023-11-14T22:13:20.25Z", 7_000_000, 0o4755)
    assert file.xattrs == {b"SCHILY.xattr.user.k": b"\xc3\xa9\xff\n"}
    assert (soft.type, soft.link, hard.type, hard.link) == (
        "symlink",
        b"opt/1",
        "hardlink",
        b"opt/1",
    )


def test_the_same_layer_gives_the_same_bytes_however_it_arrives() -> None:
    blob = FORMS["level 9"]
    ways = {make_ztoc(pieces(blob, size), SPAN).encode() for size in (7, 65_536, 1 << 20)}
    assert len(ways) == 1


def test_a_block_that_ends_inside_of_a_byte_is_entered_there() -> None:
    reader = ZtocReader(make_ztoc([FORMS["level 9"]], SPAN).encode())
    assert any(point.bits for point in reader.points)


def test_a_layer_of_nothing_has_a_ztoc() -> None:
    reader = ZtocReader(make_ztoc([gzip.compress(bytes(1024))]).encode())
    assert (reader.files, len(reader.points), reader.size) == ([], 1, 1024)


@pytest.mark.parametrize("cut", [5, 30, -9, -1])
def test_a_layer_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(LayerError):
        make_ztoc([FORMS["level 9"][:cut]])


def test_damage_is_refused() -> None:
    blob = bytearray(FORMS["level 9"])
    blob[len(blob) // 2] ^= 0xFF
    with pytest.raises(LayerError):
        make_ztoc([bytes(blob)])


def header(kind: bytes, **facts: int) -> bytes:
    member = tarfile.TarInfo("x")
    member.type = kind
    for name, value in facts.items():
        setattr(member, name, value)
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def global_header() -> bytes:
    data = b"19 comment=whatever\n"
    member = tarfile.TarInfo("pax_global_header")
    member.type, member.size = tarfile.XGLTYPE, len(data)
    file = tarfile.TarInfo("x").tobuf()
    block = member.tobuf() + data.ljust(512, b"\0") + file
    return gzip.compress(block + bytes(1024))


@pytest.mark.parametrize(
    "blob",
    [
        global_header(),
        header(b"V"),
        header(tarfile.REGTYPE, uid=1 << 33),
        header(tarfile.REGTYPE, mtime=1 << 60),
    ],
    ids=["a global pax header", "a volume label", "a large owner", "a time beyond years"],
)
def test_what_a_ztoc_cannot_say_is_told(blob: bytes) -> None:
    with pytest.raises(UnindexableLayerError):
        make_ztoc([blob])


def test_a_sparse_file_is_none_for_a_ztoc() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("x")
        member.size = 512
        member.pax_headers = {"GNU.sparse.size": "4096", "GNU.sparse.map": "0,512"}
        tar.addfile(member, io.BytesIO(bytes(512)))
    with pytest.raises(UnindexableLayerError, match="sparse"):
        make_ztoc([gzip.compress(buffer.getvalue())])


def test_the_size_of_the_layer_is_read_from_an_encoded_ztoc() -> None:
    raw = make_ztoc([FORMS["apart"]]).encode()
    assert described_size(raw, "here") == len(FORMS["apart"])
    for bad in (b"", b"\xff" * 40, struct.pack("<I", 1 << 31)):
        with pytest.raises(ManifestError, match="no zTOC"):
            described_size(bad, "here")


def test_checkpoints_of_the_first_version_are_read_too() -> None:
    """The test's own reader, which stands for AWS's: the first checkpoint is left out there."""
    from tests.support.ztoc_reader import _points

    blob = FORMS["apart"]
    raw = make_ztoc([blob], SPAN)
    packed = [
        struct.pack("<qqB", p.compressed_offset, p.offset, p.bits) + p.window
        for p in raw.checkpoints
    ]
    head = struct.pack("<iq", len(packed), SPAN)
    assert _points(head + b"".join(packed[1:])) == _points(head + b"".join(packed))
