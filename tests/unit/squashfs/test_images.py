"""Linked images read back, damaged on purpose, and compared."""

from __future__ import annotations

import io
import random
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.core import differing_pieces, pieces_digest
from slipway.squashfs import (
    DIR,
    REG,
    SYMLINK,
    WRITABLE_DEPTH,
    FileChange,
    ImageRules,
    LayerCache,
    SqshOptions,
    TarSource,
    check_image,
    compile_layers,
    diff_images,
    link_image,
    open_image,
)
from slipway.squashfs.format.errors import SquashfsError
from slipway.squashfs.format.structures import Superblock
from slipway.squashfs.link import data_copier
from slipway.squashfs.link import linker as linking
from slipway.squashfs.link.data_layout import arrange_data
from slipway.squashfs.link.inode_writer import InodeWriter
from slipway.squashfs.link.linker import LinkResult
from tests.unit.squashfs.test_layers import Member, archive, member, source


def noise(size: int, seed: int = 1) -> bytes:
    """Data that does not compress, the same in each run."""
    return random.Random(seed).randbytes(size)


CAPABILITY = {"SCHILY.xattr.security.capability": "v\x01content", "SCHILY.xattr.user.a": "1"}
MEMBERS = [
    member("d", tarfile.DIRTYPE),
    *[member(f"d/file-{number:03d}-{'x' * 60}", data=b"%d" % number) for number in range(150)],
    member("big", data=noise(3 * 4096 + 5)),
    member("sparse", data=bytes(5 * 4096) + b"end"),
    member("capable", data=b"elf", pax_headers=CAPABILITY),
    member("hard", tarfile.LNKTYPE, linkname="big"),
    member("link", tarfile.SYMTYPE, linkname="d"),
    member("fifo", tarfile.FIFOTYPE),
    member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
]


def make(
    folder: Path, *layers: list[Member], options: SqshOptions | None = None, **rules: object
) -> tuple[Path, LinkResult]:
    options = options or SqshOptions("zstd", 1, 4096)
    folder.mkdir(exist_ok=True)
    sources = [source(archive(members)) for members in layers]
    output = folder / "image.sqsh"
    with compile_layers(LayerCache(folder / "cache"), sources, options) as made:
        return output, link_image(made, output, options, ImageRules(**rules))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    return {
        name: make(folder / name, MEMBERS, options=SqshOptions(name, None, 4096))[0]
        for name in ("none", "zstd")
    }


def test_an_image_is_whole_and_says_what_it_holds(tmp_path: Path) -> None:
    path, linked = make(tmp_path, MEMBERS)
    found = check_image(path)
    assert (found.entries, found.inodes) == (linked.entries, linked.inodes) == (158, 158)
    assert differing_pieces(path, linked.pieces) is None
    assert path.stat().st_size % 4096 == 0


@pytest.mark.parametrize("name", ["none", "zstd"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["superblock", "tables", "tables"]),
            st.integers(0, (1 << 32) - 1),
            st.one_of(st.sampled_from([0, 255]), st.integers(0, 255)),
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(0, (1 << 32) - 1)),
)
def test_a_damaged_image_is_an_error_of_one_line_or_read_without_harm(
    images: dict[str, Path],
    tmp_path: Path,
    name: str,
    changes: list[tuple[str, int, int]],
    cut: int | None,
) -> None:
    damaged = bytearray(images[name].read_bytes())
    tables = Superblock.unpack(bytes(damaged)).inode_table
    parts = {"superblock": (0, Superblock.SIZE), "tables": (tables, len(damaged) - tables)}
    for part, at, value in changes:
        start, size = parts[part]
        damaged[start + at % size] = value
    if cut is not None:
        del damaged[cut % len(damaged) :]
    path = tmp_path / "damaged.sqsh"
    path.write_bytes(damaged)
    try:
        check_image(path)
        told = str(path)
    except SquashfsError as error:
        told = str(error)
    assert str(path) in told
    assert "\n" not in told


@pytest.mark.parametrize("size", [0, 1, 95, 96, 4096])
def test_a_file_cut_short_is_damaged(images: dict[str, Path], tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.sqsh"
    path.write_bytes(images["zstd"].read_bytes()[:size])
    with pytest.raises(SquashfsError, match="damaged"):
        check_image(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SquashfsError, match="No such file"):
        check_image(tmp_path / "absent.sqsh")


def test_the_same_layers_give_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    first, one = make(tmp_path / "a", MEMBERS, [member("x", data=b"1")])
    second, two = make(tmp_path / "b", MEMBERS, [member("x", data=b"1")])
    assert first.read_bytes() == second.read_bytes()
    assert pieces_digest(one.pieces) == pieces_digest(two.pieces)


def test_data_that_no_live_file_refers_to_is_not_copied(tmp_path: Path) -> None:
    gone = noise(40 * 4096)
    lower = [member("keep", data=gone[:4096]), member("gone", data=gone)]
    path, _ = make(tmp_path, lower, [member(".wh.gone")])
    assert path.stat().st_size < 4 * 4096
    assert gone[:1000] in path.read_bytes()
    assert gone[-1000:] not in path.read_bytes()
    check_image(path)


def test_a_large_file_that_is_there_twice_is_stored_once(tmp_path: Path) -> None:
    library, other = noise(6 * 4096, 1), noise(6 * 4096, 2)
    lower = [member("a", data=library), member("b", data=other), member("z/a", data=library)]
    upper = [member("upper/a", data=library), member("upper/c", data=noise(6 * 4096, 3))]
    path, linked = make(tmp_path, lower, upper)
    image = path.read_bytes()
    assert [image.count(data[:4096]) for data in (library, other, noise(6 * 4096, 3))] == [1, 1, 1]
    expected = {**dict.fromkeys(("a", "z/a", "upper/a"), library), "b": other}
    with open_image(path) as opened_image:
        for entry in opened_image.walk():
            if (name := entry.path.decode()) in expected:
                assert b"".join(opened_image.content(entry.inode)) == expected[name]
    assert differing_pieces(path, linked.pieces) is None


def test_the_copy_of_a_removed_file_is_kept(tmp_path: Path) -> None:
    library = noise(6 * 4096)
    lower = [member("a", data=library), member("b", data=library)]
    path, _ = make(tmp_path, lower, [member(".wh.a"), member("c", data=library)])
    assert path.read_bytes().count(library[:4096]) == 1
    with open_image(path) as image:
        found = {e.path: b"".join(image.content(e.inode)) for e in image.walk() if e.path}
    assert found == {b"b": library, b"c": library}


def test_what_stays_between_removed_files_is_where_the_inodes_say(tmp_path: Path) -> None:
    contents = {f"f{number}": noise(4096 * (number % 3 + 1) + 7, number) for number in range(30)}
    lower = [member(name, data=data) for name, data in contents.items()]
    upper = [member(f".wh.f{number}") for number in range(0, 30, 3)]
    path, linked = make(tmp_path, lower, upper)
    with open_image(path) as image:
        for entry in image.walk():
            if entry.path:
                data = b"".join(image.content(entry.inode))
                assert data == contents[entry.path.decode()]
    assert differing_pieces(path, linked.pieces) is None


def test_rules_give_everything_to_root_make_it_readable_and_drop_devices(tmp_path: Path) -> None:
    members = [
        member("secret", data=b"s", mode=0o000, uid=5, gid=6),
        member("null", tarfile.CHRTYPE),
        member("a/b/null", tarfile.BLKTYPE),
    ]
    path, linked = make(
        tmp_path, members, all_root=True, readable=True, keep_devices=False, mtime=77
    )
    assert sorted(linked.devices_left_out) == [b"a/b/null", b"null"]
    with open_image(path) as image:
        inodes = {entry.path: entry.inode for entry in image.walk()}
        assert image.superblock.mtime == 77
    assert {(inode.uid, inode.gid) for inode in inodes.values()} == {(0, 0)}
    assert inodes[b"secret"].mode == 0o400
    assert inodes[b""].mtime == inodes[b"a/b"].mtime == 77


@pytest.mark.parametrize("linked", [False, True], ids=["rows in bulk", "one by one"])
def test_modes_are_those_of_chmod_and_find_at_every_depth(tmp_path: Path, linked: bool) -> None:
    """Held against the commands that enroot runs, on a tree of all modes and of 18 levels."""
    root = tmp_path / "tree"
    folder, below = root, ""
    members: list[Member] = []
    for depth, mode in enumerate([0o000, 0o555, 0o700, 0o511, 0o070, 0o1777, 0o2711] * 3):
        folder, below = folder / f"d{depth}", f"{below}d{depth}/"
        members.append(member(below.rstrip("/"), tarfile.DIRTYPE, mode=mode))
        for bits in (0o000, 0o001, 0o010, 0o100, 0o222, 0o444, 0o6711, 0o4000, 0o0644):
            members.append(member(f"{below}f{bits:o}", data=b"x", mode=bits))
        members.append(member(f"{below}pipe", tarfile.FIFOTYPE, mode=0o010))
        members.append(member(f"{below}link", tarfile.SYMTYPE, linkname="f0"))
        if linked:
            members.append(member(f"{below}hard", tarfile.LNKTYPE, linkname=f"{below}f1", mode=1))
    path, _ = make(tmp_path, members, readable=True, writable_depth=WRITABLE_DEPTH)
    with tarfile.open(fileobj=io.BytesIO(archive(members))) as tar:
        tar.extractall(root, filter="fully_trusted")
    subprocess.run(["chmod", "-R", "u+rX", str(root)], check=True)
    deep = f"find {root} -maxdepth 15 -type d -exec chmod u+w {{}} +"
    subprocess.run(["sh", "-c", deep], check=True)
    with open_image(path) as image:
        for at in image.walk():
            if at.path and at.inode.kind != SYMLINK:
                theirs = stat.S_IMODE((root / at.path.decode()).lstat().st_mode)
                assert at.inode.mode == theirs, at.path


def test_hundreds_of_owners_are_kept(tmp_path: Path) -> None:
    members = [member(f"f{n}", uid=n * 7, gid=n + 100_000) for n in range(3000)]
    path, _ = make(tmp_path, members)
    with open_image(path) as image:
        owners = {entry.path: (entry.inode.uid, entry.inode.gid) for entry in image.walk()}
    assert owners[b"f2999"] == (2999 * 7, 102_999)


@pytest.mark.parametrize(
    "other",
    [
        SqshOptions("zstd", 19, 4096),
        SqshOptions("lz4", None, 4096),
        SqshOptions("zstd", 1, 8192),
    ],
)
def test_a_diff_is_about_contents_and_not_about_how_they_are_stored(
    tmp_path: Path, other: SqshOptions
) -> None:
    one, _ = make(tmp_path / "one", MEMBERS)
    two, _ = make(tmp_path / "two", MEMBERS, options=other)
    assert diff_images(one, two) == []


def test_a_diff_names_what_was_added_removed_and_changed(tmp_path: Path) -> None:
    before = [
        member("same", data=b"x" * 5000),
        member("gone", data=b"12345"),
        member("content", data=b"old"),
        member("mode", data=b"m"),
        member("type", data=b"t"),
        member("time", data=b"t", mtime=1),
        member("linked", data=b"l"),
    ]
    after = [
        member("same", data=b"x" * 5000),
        member("content", data=b"new!"),
        member("mode", data=b"m", mode=0o600),
        member("type", tarfile.SYMTYPE, linkname="same"),
        member("time", data=b"t", mtime=2),
        member("new", data=b"123"),
        member("linked", data=b"l"),
        member("other", tarfile.LNKTYPE, linkname="linked"),
    ]
    old, _ = make(tmp_path / "old", before)
    new, _ = make(tmp_path / "new", after)
    assert diff_images(old, old) == []
    assert diff_images(old, new) == [
        FileChange("changed", b"content", 3, 4, ("content",)),
        FileChange("removed", b"gone", 5, None),
        FileChange("changed", b"linked", 1, 1, ("links",)),
        FileChange("changed", b"mode", 1, 1, ("mode",)),
        FileChange("added", b"new", None, 3),
        FileChange("added", b"other", None, 1),
        FileChange("changed", b"type", 1, 0, ("type",)),
    ]
    timed = [change.path for change in diff_images(old, new, times=True) if "time" in change.what]
    assert timed == [b"time"]


def test_a_directory_of_tens_of_thousands_is_indexed_and_read(tmp_path: Path) -> None:
    members = [member(f"d/{number:06d}") for number in range(30_000)]
    path, _ = make(tmp_path, members)
    with open_image(path) as image:
        names = [entry.path for entry in image.walk() if entry.inode.kind == REG]
        assert len(names) == 30_000
        listing = [e.inode.size for e in image.walk() if e.path == b"d" and e.inode.kind == DIR]
    assert listing[0] > 65_535


def test_files_beyond_4_gib_have_wide_inodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        linking, "arrange_data", lambda merged, at: arrange_data(merged, at + (5 << 30))
    )
    content = noise(3 * 4096)
    path, _ = make(tmp_path, [member("far", data=content), member("tail", data=b"in a fragment")])
    assert path.stat().st_size > 5 << 30
    assert path.stat().st_blocks * 512 < 1 << 20
    with open_image(path) as image:
        found = {e.path: e.inode for e in image.walk()}
        assert found[b"far"].start > 5 << 30
        assert b"".join(image.content(found[b"far"])) == content
        assert b"".join(image.content(found[b"tail"])) == b"in a fragment"


def test_a_file_over_4_gib_of_holes_takes_no_room(tmp_path: Path) -> None:
    size = (4 << 30) + 5

    info = tarfile.TarInfo("huge")
    info.size, info.mode = size, 0o644
    head, end = info.tobuf(tarfile.GNU_FORMAT), bytes(-size % 512 + 1024)
    block = bytes(1 << 20)
    count, rest = divmod(size, len(block))

    def blob() -> Iterator[bytes]:
        yield head
        for _ in range(count):
            yield block
        yield block[:rest] + end

    options = SqshOptions("zstd", 1, 1 << 20)
    # Of what `blob` gives. Compiling checks it, so it is not made here as well, for seconds.
    digest = "sha256:b29823d74987355908d01caa8e529ba3679d97cc94a321ac32f2c412f1b43364"
    huge = TarSource(digest, blob)
    with compile_layers(LayerCache(tmp_path), [huge], options) as layers:
        link_image(layers, tmp_path / "huge.sqsh", options)
    assert (tmp_path / "huge.sqsh").stat().st_size < 1 << 20
    with open_image(tmp_path / "huge.sqsh") as image:
        inode = next(entry.inode for entry in image.walk() if entry.path == b"huge")
        assert (inode.size, inode.holes) == (size, size)
        assert sum(map(len, image.content(inode))) == size


def test_an_error_in_the_tables_stops_the_copy_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_copier, "_PIECE", 1024)  # a fourth of a step
    steps = []
    begun = threading.Event()

    def on_bytes(done: int, total: int) -> None:
        steps.append((done, total))
        begun.set()
        time.sleep(0.01)

    def fail(self: InodeWriter) -> None:
        assert begun.wait(60)
        raise SquashfsError("no")

    monkeypatch.setattr(InodeWriter, "write", fail)
    layer = source(archive([member("f", data=noise(500 * 4096))]))
    with (
        compile_layers(
            LayerCache(tmp_path / "cache"), [layer], SqshOptions("none", None, 4096)
        ) as made,
        pytest.raises(SquashfsError, match="no"),
    ):
        link_image(made, tmp_path / "x.sqsh", SqshOptions("none", None, 4096), on_bytes=on_bytes)
    assert steps[-1][0] < steps[-1][1]
