"""Layer archives as programs really write them, held against Python's tarfile."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.squashfs import (
    DirectorySource,
    LayerCache,
    Source,
    SqshOptions,
    TarSource,
    compile_layers,
    link_image,
    open_image,
)
from slipway.squashfs.compile import tar_reader
from slipway.squashfs.compile.layer_stream import decompressed_stream
from slipway.squashfs.compile.layer_tree import split_path
from slipway.squashfs.format.errors import LayerError
from tests.unit.squashfs.test_layers import archive, member, source

OPTIONS = SqshOptions("zstd", 1, 4096)


def image_of(folder: Path, *sources: Source) -> Path:
    output = folder / "image.sqsh"
    with compile_layers(LayerCache(folder / "cache"), sources, OPTIONS) as layers:
        link_image(layers, output, OPTIONS)
    return output


def contents(path: Path) -> dict[bytes, tuple[int, bytes]]:
    with open_image(path) as image:
        return {
            entry.path: (
                entry.inode.kind,
                entry.inode.target or b"".join(image.content(entry.inode)),
            )
            for entry in image.walk()
            if entry.path
        }


def contents_of(folder: Path, data: bytes) -> dict[bytes, tuple[int, bytes]]:
    folder.mkdir(exist_ok=True)
    return contents(image_of(folder, source(data)))


WHOLE = archive([member("a", data=b"x" * 700), member("b/c", data=b"y" * 512)])
USED = len(WHOLE.rstrip(b"\0")) + 511 & ~511


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[:USED], id="no block of zeros"),
        pytest.param(WHOLE[: USED + 512], id="one block of zeros"),
        pytest.param(WHOLE[:USED] + bytes(1024) + b"garbage", id="more after the end"),
        pytest.param(
            archive([member("b/c", data=b"y" * 512), member("a", data=b"x" * 700)])[
                : 3 * 512 + 700
            ],
            id="no padding",
        ),
    ],
)
def test_archives_that_end_as_others_take_it_are_whole(tmp_path: Path, data: bytes) -> None:
    assert contents_of(tmp_path / "a", data) == contents_of(tmp_path / "b", WHOLE)


def test_an_archive_without_members_is_an_empty_layer(tmp_path: Path) -> None:
    assert contents_of(tmp_path, b"") == {}


@pytest.mark.parametrize("cut", [100, 512 + 100, 1024 + 100])
def test_an_archive_that_ends_inside_a_member_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(LayerError, match="ends in the middle"):
        contents_of(tmp_path, WHOLE[:cut])


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("etc/../up", b"up"),
        ("./a/./b//c", b"a/b/c"),
        ("/absolute", b"absolute"),
        ("a/b/../../c/../d", b"d"),
        ("a/../a/../a", b"a"),
        ("/x/..//y", b"y"),
    ],
)
def test_names_are_cleaned_while_they_stay_inside(tmp_path: Path, name: str, clean: bytes) -> None:
    found = contents_of(tmp_path, archive([member(name, data=b"1")]))
    assert clean in found
    assert found[clean][1] == b"1"


def test_whiteouts_and_hard_links_are_cleaned_too(tmp_path: Path) -> None:
    lower = archive([member("etc/gone"), member("etc/kept", data=b"kept")])
    upper = archive(
        [
            member("x/../etc/.wh.gone"),
            member("etc/second", tarfile.LNKTYPE, linkname="y/../etc/./kept"),
        ]
    )
    found = contents(image_of(tmp_path, source(lower), source(upper)))
    assert set(found) == {b"etc", b"etc/kept", b"etc/second"}
    assert found[b"etc/second"][1] == b"kept"


@pytest.mark.parametrize("name", [".", "./", "a/.."])
def test_a_file_in_the_place_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayerError, match="place of the root"):
        contents_of(tmp_path, archive([member(name, data=b"x")]))


def test_a_hard_link_finds_its_file_through_links_of_the_layer(tmp_path: Path) -> None:
    data = archive(
        [
            member("usr/lib/x", data=b"elf"),
            member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
            member("y", tarfile.LNKTYPE, linkname="lib/x"),
        ]
    )
    assert contents_of(tmp_path, data)[b"y"][1] == b"elf"


def test_a_file_is_as_the_header_of_its_last_hard_link_says(tmp_path: Path) -> None:
    """As docker and containerd set it when they unpack the layer."""
    note = {"SCHILY.xattr.user.note": "1"}
    data = archive(
        [
            member("f", data=b"x", mode=0o644, uid=1, gid=2, mtime=3, pax_headers=note),
            member("s", tarfile.SYMTYPE, linkname="f", uid=1, gid=2, mtime=3),
            member("h", tarfile.LNKTYPE, linkname="f", mode=0o4750, uid=7, gid=8, mtime=9),
            member("t", tarfile.LNKTYPE, linkname="s", mode=0o600, uid=7, gid=8, mtime=9),
        ]
    )
    with open_image(image_of(tmp_path, source(data))) as image:
        inodes = {entry.path: entry.inode for entry in image.walk()}
        assert image.xattrs(inodes[b"f"]) == {b"user.note": b"1"}
    for name, mode in ((b"f", 0o4750), (b"h", 0o4750), (b"s", 0o777), (b"t", 0o777)):
        inode = inodes[name]
        assert (inode.mode, inode.uid, inode.gid, inode.mtime) == (mode, 7, 8, 9), name


def test_a_hard_link_of_an_impossible_owner_is_refused(tmp_path: Path) -> None:
    data = archive([member("f", data=b"x"), member("h", tarfile.LNKTYPE, linkname="f")])
    link = bytearray(data)
    link[1024 + 108 : 1024 + 116] = b"\x80" + bytes(2) + b"\x01" + bytes(4)  # 2 ** 32
    link[1024 + 148 : 1024 + 156] = b"        "
    link[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(link[1024 : 1024 + 512])
    with pytest.raises(LayerError, match="owner 4294967296"):
        contents_of(tmp_path, bytes(link))


def test_sizes_of_members_without_content_are_not_passed_over(tmp_path: Path) -> None:
    blocks = bytearray(
        archive(
            [
                member("a", data=b"x"),
                member("d", tarfile.DIRTYPE),
                member("l", tarfile.SYMTYPE, linkname="a"),
                member("h", tarfile.LNKTYPE, linkname="a"),
                member("z", data=b"last"),
            ]
        )
    )
    for at in range(1024, 1024 + 3 * 512, 512):
        blocks[at + 124 : at + 136] = b"00000004000\0"
        blocks[at + 148 : at + 156] = b"        "
        blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    assert contents_of(tmp_path, bytes(blocks))[b"z"][1] == b"last"


def test_a_checksum_of_signed_bytes_is_taken(tmp_path: Path) -> None:
    block = bytearray(archive([member("n\u00e4me", data=b"x")]))
    start = 0
    if block[156:157] == b"x":
        start = 1024
    header = block[start : start + 512]
    header[0:6] = "n\u00e4me".encode() + b"\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in header)
    data = bytes(header) + bytes(block[start + 512 :])
    assert contents_of(tmp_path, data)["n\u00e4me".encode()][1] == b"x"


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar_are_filled(tmp_path: Path, version: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as stream:
        for at in range(5):
            stream.seek(at * 200_000)
            stream.write(b"%d" % at * 5000)
        stream.truncate(1_500_000)
    (tree / "zz").write_bytes(b"after")
    command = ["tar", "-C", str(tree), "--sparse", f"--sparse-version={version}", "-H", "posix"]
    done = subprocess.run([*command, "-c", "sparse", "zz"], check=True, capture_output=True)
    assert b"GNU.sparse" in done.stdout
    found = contents_of(tmp_path, done.stdout)
    assert found[b"sparse"][1] == (tree / "sparse").read_bytes()
    assert found[b"zz"][1] == b"after"


NAMES = st.lists(
    st.sampled_from(["a", "b", "c", "..", ".", "long" * 30, "\u00fc\u4e16", "with blank"]),
    min_size=1,
    max_size=4,
).map("/".join)
FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Files under all kinds of names, by Python's own writer, cut and packed as others do."""
    out = io.BytesIO()
    kind = draw(st.sampled_from(sorted(FORMATS)))
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[kind]) as tar:
        for _ in range(draw(st.integers(0, 8))):
            info = tarfile.TarInfo(draw(NAMES))
            if kind == "ustar" and len(info.name.encode()) > 90:
                continue
            info.mode = draw(st.integers(0, 0o7777))
            info.mtime = draw(st.one_of(st.integers(0, 2**33 - 1), st.floats(0, 2**31)))
            if kind == "ustar":
                info.mtime = int(info.mtime)
            info.uid = draw(st.sampled_from([0, 1000, 2**21 - 1]))
            if draw(st.booleans()):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                data = draw(st.binary(max_size=1500))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = out.getvalue()
    if draw(st.booleans()):
        data = data[: (len(data.rstrip(b"\0")) + 511) & ~511]
    return data


def expected(data: bytes) -> dict[bytes, bytes | None] | None:
    """What Python's tarfile has: content of files, None for directories; nothing where refused."""
    tree: dict[bytes, bytes | None] = {}
    if not data:
        return tree
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            try:
                names = split_path(info.name.encode())
            except ValueError:
                return None
            if not names:
                if info.isdir():
                    continue
                return None
            for depth in range(1, len(names)):
                parent = b"/".join(names[:depth])
                if tree.get(parent, b"") is not None:
                    tree[parent] = None
            path = b"/".join(names)
            stream = tar.extractfile(info) if info.isreg() else None
            content = stream.read() if stream is not None else None
            if content is not None:
                for below in [name for name in tree if name.startswith(path + b"/")]:
                    del tree[below]
            tree[path] = content
    return tree


@given(data=archives())
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_archives_are_read_as_pythons_tarfile_reads_them(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    wanted = expected(data)
    if wanted is None:
        with pytest.raises(LayerError, match=r"leads out|place of the root"):
            contents_of(folder, data)
        return
    found = contents_of(folder, data)
    assert {path: data if kind == 2 else None for path, (kind, data) in found.items()} == wanted


@given(data=st.binary(max_size=3000), header=st.binary(min_size=512, max_size=512))
@settings(max_examples=150)
def test_garbage_is_refused_or_read_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, header: bytes
) -> None:
    """Random bytes behind a header whose checksum is made right."""
    block = bytearray(header)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    folder = tmp_path_factory.mktemp("garbage")
    with contextlib.suppress(LayerError):
        contents_of(folder, bytes(block) + data)


def tree_of(folder: Path) -> None:
    """Files whose order in listings, archives and by name differs; links; sizes of all kinds."""
    rows = [("b/x", 3), ("b.d/y", 9000), ("b-z", 4096), ("a/z/1", 12_289), ("a/z.d", 1), ("c", 0)]
    for number, (name, size) in enumerate(rows):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes((number + at * at) % 251 for at in range(size)))
    os.link(folder / "a/z/1", folder / "0-hard")
    os.link(folder / "b/x", folder / "z-hard")
    (folder / "link").symlink_to("a/z")
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


@pytest.mark.parametrize("order", [sorted, lambda paths: sorted(paths, reverse=True)])
def test_a_layer_has_the_same_bytes_from_its_folder_and_from_its_archive(
    tmp_path: Path, order: Callable[[list[Path]], list[Path]]
) -> None:
    folder = tmp_path / "layer"
    tree_of(folder)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in order(list(folder.rglob("*"))):
            tar.add(path, str(path.relative_to(folder)), recursive=False)
    data = out.getvalue()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    images = []
    layers: list[Source] = [
        DirectorySource(digest, folder),
        TarSource(digest, lambda: iter([data])),
    ]
    for number, layer in enumerate(layers):
        (tmp_path / str(number)).mkdir()
        images.append(image_of(tmp_path / str(number), layer).read_bytes())
    assert images[0] == images[1]


def test_a_folder_and_an_archive_share_one_entry_of_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    tree_of(folder)
    cache = LayerCache(tmp_path / "cache")
    digest = "sha256:" + "0" * 64

    def never() -> Iterator[bytes]:
        raise AssertionError("the layer is in the cache")

    for layer in (DirectorySource(digest, folder), TarSource(digest, never)):
        with compile_layers(cache, [layer], OPTIONS):
            pass


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip with padding": lambda data: gzip.compress(data) + bytes(700),
    "zstd": zstandard.compress,
    "zstd of frames": lambda data: b"".join(
        zstandard.compress(data[at : at + 999]) for at in range(0, len(data), 999)
    ),
    "zstd with a skippable frame": lambda data: (
        b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(data)
    ),
    "xz": lzma.compress,
    "xz of streams": lambda data: lzma.compress(data[:999]) + lzma.compress(data[999:]),
    "bzip2": bz2.compress,
    "bzip2 of streams": lambda data: bz2.compress(data[:999]) + bz2.compress(data[999:]),
}


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_compressed_layers_are_read_in_pieces_of_any_size(pack: str, piece: int) -> None:
    blob = PACKERS[pack](WHOLE)
    pieces = (blob[at : at + piece] for at in range(0, len(blob), piece))
    assert b"".join(decompressed_stream(pieces)) == WHOLE


@pytest.mark.parametrize("pack", ["gzip", "zstd", "xz", "bzip2"])
def test_what_a_few_bytes_unpack_to_is_not_held_in_memory(tmp_path: Path, pack: str) -> None:
    """400 MiB of zeros, unpacked by a process that may have 250 in all."""
    blob = tmp_path / "blob"
    code = """
import sys, zlib, lzma, bz2, zstandard
make = {"gzip": lambda: zlib.compressobj(1, wbits=31), "zstd": lambda: zstandard.ZstdCompressor()
        .compressobj(), "xz": lambda: lzma.LZMACompressor(preset=0), "bzip2":
        lambda: bz2.BZ2Compressor(9)}[sys.argv[1]]()
with open(sys.argv[2], "wb") as out:
    for _ in range(int(sys.argv[3])):
        out.write(make.compress(bytes(1 << 20)))
    out.write(make.flush())
"""
    count = 400
    subprocess.run([sys.executable, "-c", code, pack, str(blob), str(count)], check=True)
    read = """
import sys, resource
from pathlib import Path
from slipway.squashfs.compile.layer_stream import decompressed_stream
limit = 250 << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
data = Path(sys.argv[1]).read_bytes()
print(sum(len(piece) for piece in decompressed_stream(iter([data]))))
"""
    done = subprocess.run(
        [sys.executable, "-c", read, str(blob)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == count << 20


@pytest.mark.parametrize("pack", ["gzip", "zstd", "xz", "bzip2"])
def test_a_damaged_blob_is_said_whatever_packed_it(tmp_path: Path, pack: str) -> None:
    blob = bytearray(PACKERS[pack](archive([member("a", data=os.urandom(9000))])))
    blob[len(blob) // 2] ^= 0xFF
    blob[len(blob) // 2 + 1] ^= 0xFF
    data = archive([member("a")])
    with pytest.raises(LayerError):
        image_of(tmp_path, source(data, bytes(blob)))


def test_many_attributes_on_one_file_are_kept(tmp_path: Path) -> None:
    attributes = {f"SCHILY.xattr.user.n{number}": f"v{number}" for number in range(60_000)}
    data = archive([member("f", data=b"x", pax_headers=attributes)])
    path = image_of(tmp_path, source(data))
    with open_image(path) as image:
        inode = next(entry.inode for entry in image.walk() if entry.path == b"f")
        assert inode.xattr is not None


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        (b"a/" + b"n" * 255, True),
        (b"a/" + b"n" * 256, False),
        (b"a/.wh." + b"n" * 255, True),  # the file that it hides has a name of 255 bytes
        (b"a/.wh." + b"n" * 256, False),
        (b".wh." + b"n" * 255 + b"/a", False),
    ],
)
def test_a_name_fits_where_a_file_can_have_it_or_a_whiteout_can_hide_it(
    path: bytes, fits: bool
) -> None:
    if fits:
        assert split_path(path)
        return
    with pytest.raises(ValueError, match="the most is 255"):
        split_path(path)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"1", (1, 0)),
        (b"-1.5", (-2, 500_000_000)),
        (b"-0.1", (-1, 900_000_000)),
        (b"1700000000.999999999", (1700000000, 999_999_999)),
        (b"5e-324", (0, 0)),  # str() of the smallest float, as Python's tarfile writes it
        (b"1.7e9", (1700000000, 0)),
    ],
)
def test_a_time_of_a_pax_record_is_rounded_down(text: bytes, time: tuple[int, int]) -> None:
    assert tar_reader._time(text) == time


@pytest.mark.parametrize("text", [b"", b"x", b"nan", b"sNaN", b"inf", b"\xff", b"1e999999999999"])
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="the time"):
        tar_reader._time(text)


@pytest.mark.parametrize(
    ("name", "size"),
    [("user.a", 65537), ("user.a", 1 << 20), ("user." + "n" * 251, 1), ("user.", 1)],
)
def test_an_attribute_that_no_file_can_have_is_refused(
    tmp_path: Path, name: str, size: int
) -> None:
    data = archive([member("f", pax_headers={f"SCHILY.xattr.{name}": "v" * size})])
    with pytest.raises(LayerError, match="'f' in the layer's archive: the extended attribute"):
        contents_of(tmp_path, data)


@pytest.mark.parametrize(("name", "size"), [("user.a", 65536), ("user." + "n" * 250, 0)])
def test_an_attribute_at_the_kernels_limits_is_kept(tmp_path: Path, name: str, size: int) -> None:
    data = archive([member("f", pax_headers={f"SCHILY.xattr.{name}": "v" * size})])
    with open_image(image_of(tmp_path, source(data))) as image:
        (file,) = (entry.inode for entry in image.walk() if entry.path == b"f")
        assert image.xattrs(file) == {name.encode(): b"v" * size}


def test_a_zstd_window_that_is_too_large_is_said_with_a_cure() -> None:
    large = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=large).compressobj()
    blob = packer.compress(b"x" * 1000) + packer.flush()
    with pytest.raises(LayerError, match=r"a window of more than 128 MiB[^$]*long=27"):
        list(decompressed_stream([blob]))
    right = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=right).compressobj()
    blob = packer.compress(b"x" * 1000) + packer.flush()
    assert b"".join(decompressed_stream([blob])) == b"x" * 1000
