from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.sqsh import tar_headers
from slipway.sqsh.tar_headers import TarEntry, TarError
from slipway.sqsh.tar_rewrite import TarChanges, rewrite_tar
from slipway.sqsh.unsquashfs import ExpectedContents

FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
FAR_FUTURE = 1 << 40
NO_CHANGES = TarChanges(files={}, working_dir="", created=0, touched_after=FAR_FUTURE)


def archive(*entries: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def run(
    data: bytes, changes: TarChanges = NO_CHANGES, piece: int = 4096
) -> tuple[dict[str, tarfile.TarInfo], dict[str, bytes], ExpectedContents]:
    """The result as Python's own tarfile reads it: entries and contents by name."""
    out = io.BytesIO()
    written = rewrite_tar(pieces(data, piece), out, changes, lambda count: None)
    out.seek(0)
    entries, contents = {}, {}
    with tarfile.open(fileobj=out, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in tar:
            assert entry.name not in entries
            entries[entry.name] = entry
            stream = tar.extractfile(entry) if entry.isreg() else None
            contents[entry.name] = stream.read() if stream else b""
    assert written.entries == len(entries)
    return entries, contents, written


part = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
paths = st.lists(part.filter(lambda p: p not in (".", "..")), min_size=1, max_size=6).map("/".join)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(paths, unique=True, max_size=8),
    st.sampled_from(FORMATS),
    st.integers(1, 3000),
    st.integers(0, 2000),
)
def test_names_and_contents_come_through_whatever_the_pieces_are(
    names: list[str], form: int, piece: int, size: int
) -> None:
    names = [name for name in names if not name.startswith("dev/")]
    data = archive(*(info(name, size=size) for name in names), form=form)
    entries, contents, _ = run(data, piece=piece)
    assert {name: contents[name] for name in names} == dict.fromkeys(names, b"x" * size)
    assert all(entry.isdir() for name, entry in entries.items() if name not in names)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["long/" * 60 + "name", "d/caf\udce9", "n" * 101, "a\nb" * 50])
def test_names_that_a_plain_header_cannot_hold_come_through(name: str, form: int) -> None:
    data = archive(info(name, size=3), info("link", tarfile.SYMTYPE, linkname=name), form=form)
    entries, contents, _ = run(data)
    assert contents[name] == b"xxx"
    assert entries["link"].linkname == name


def test_every_kind_of_entry_keeps_what_it_is() -> None:
    data = archive(
        info("file", size=700, mode=0o4755, mtime=7),
        info("dir", tarfile.DIRTYPE, mode=0o1777),
        info("hard", tarfile.LNKTYPE, linkname="./file"),
        info("soft", tarfile.SYMTYPE, linkname="../x", mode=0o777),
        info("fifo", tarfile.FIFOTYPE, mode=0o600),
    )
    entries, _, written = run(data)
    assert entries["file"].mode == 0o4755
    assert entries["file"].mtime == 7
    assert entries["dir"].isdir()
    assert entries["dir"].mode == 0o1777
    assert entries["hard"].islnk()
    assert entries["hard"].linkname == "file"
    assert entries["soft"].issym()
    assert entries["soft"].linkname == "../x"
    assert entries["fifo"].isfifo()
    assert (written.entries, written.inodes) == (5, 5)  # the root, and no inode for the hard link


def test_every_entry_belongs_to_root() -> None:
    data = archive(info("f", uid=1000, gid=2000, uname="me", gname="us", size=1))
    entry = run(data)[0]["f"]
    assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")


def test_extended_attributes_with_any_byte_stay_and_overlay_bookkeeping_goes() -> None:
    value = "\x01\x00\x00\x02\n=5 user.x=y\n\udcff"
    headers = {
        "SCHILY.xattr.security.capability": value,
        "SCHILY.xattr.user.empty": "",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    entry = run(archive(info("f", pax_headers=headers)))[0]["f"]
    del headers["SCHILY.xattr.trusted.overlay.opaque"]
    assert entry.pax_headers == headers


def test_devices_and_the_engines_own_file_are_left_out() -> None:
    data = archive(
        info("dev", tarfile.DIRTYPE, mode=0o755),
        info("dev/console", size=600),
        info("dev/shm", tarfile.DIRTYPE),
        info("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        info(".dockerenv"),
        info("opt/zero", tarfile.CHRTYPE, devmajor=1, devminor=5),
        info("opt/same", tarfile.LNKTYPE, linkname="opt/zero"),
        info("device/file"),
    )
    entries, _, written = run(data)
    assert sorted(entries) == ["dev", "device", "device/file"]
    assert written.nodes_left_out == [b"opt/zero", b"opt/same"]


def test_files_of_enroot_replace_those_of_the_image() -> None:
    data = archive(
        info("etc", tarfile.DIRTYPE, mode=0o755),
        info("etc/rc", tarfile.SYMTYPE, linkname="/outside"),
        info("etc/fstab", size=900),
        info("etc/hosts", size=4),
    )
    changes = TarChanges(
        {"etc/rc": b"new", "etc/fstab": b""}, "", created=5, touched_after=FAR_FUTURE
    )
    entries, contents, _ = run(data, changes)
    assert entries["etc/rc"].isreg()
    assert entries["etc/rc"].mode == 0o644
    assert entries["etc/rc"].mtime == 5
    assert contents == {"etc": b"", "etc/rc": b"new", "etc/fstab": b"", "etc/hosts": b"xxxx"}


def test_a_folder_where_enroot_needs_a_file_is_an_error() -> None:
    changes = TarChanges({"etc/rc": b"new"}, "", created=0, touched_after=FAR_FUTURE)
    with pytest.raises(TarError, match="/etc/rc is a directory"):
        run(archive(info("etc/rc", tarfile.DIRTYPE)), changes)


@pytest.mark.parametrize(
    ("working_dir", "made"),
    [
        ("/opt/ml/code", {"opt", "opt/ml", "opt/ml/code"}),
        ("/", set()),
        ("/there/", set()),
        ("/run-link/job", {"run/job"}),
        ("/up/../new", {"new"}),
    ],
)
def test_the_working_directory_is_made_where_the_container_will_look(
    working_dir: str, made: set[str]
) -> None:
    data = archive(
        info("there", tarfile.DIRTYPE),
        info("run", tarfile.DIRTYPE),
        info("run-link", tarfile.SYMTYPE, linkname="/run"),
    )
    changes = TarChanges({}, working_dir, created=3, touched_after=FAR_FUTURE)
    entries = run(data, changes)[0]
    assert set(entries) == {"there", "run", "run-link"} | made
    assert all(entries[name].isdir() and entries[name].mode == 0o755 for name in made)


def test_a_loop_of_links_in_the_working_directory_ends() -> None:
    data = archive(info("a", tarfile.SYMTYPE, linkname="/a"))
    run(data, TarChanges({}, "/a/b", created=0, touched_after=FAR_FUTURE))


def test_parents_that_no_entry_names_are_written_once() -> None:
    data = archive(info("a/b/c"), info("a/b", tarfile.DIRTYPE, mode=0o700), info("a/d"))
    entries, _, _ = run(data)
    assert sorted(entries) == ["a", "a/b", "a/b/c", "a/d"]
    assert entries["a/b"].mode == 0o700


def test_an_ordinary_user_can_read_and_enter_the_first_five_levels() -> None:
    data = archive(
        info("etc/shadow", mode=0o000),
        info("usr/bin", tarfile.DIRTYPE, mode=0o555),
        info("1/2/3/4/5", mode=0o111),
        info("1/2/3/4/d/6", mode=0o111),
    )
    entries, _, _ = run(data)
    assert entries["etc/shadow"].mode == 0o400
    assert entries["usr/bin"].mode == 0o755
    assert entries["1/2/3/4/5"].mode == 0o511
    assert entries["1/2/3/4/d/6"].mode == 0o111


def test_times_that_the_engine_made_become_the_images_own() -> None:
    data = archive(info("old", mtime=50), info("new", mtime=100), info("newer", mtime=101))
    entries, _, _ = run(data, TarChanges({}, "", created=60, touched_after=100))
    assert {name: entry.mtime for name, entry in entries.items()} == {
        "old": 50,
        "new": 60,
        "newer": 60,
    }


@pytest.mark.parametrize(("mtime", "stored"), [(-5, 0), (1 << 33, (1 << 32) - 1), (1.75, 1)])
def test_times_are_what_squashfs_can_store(mtime: float, stored: int) -> None:
    assert run(archive(info("f", mtime=mtime)))[0]["f"].mtime == stored


def test_newlines_in_paths_are_counted() -> None:
    data = archive(info("a\nb", tarfile.DIRTYPE), info("a\nb/c\nd"))
    assert run(data)[2].newlines == 3


@pytest.mark.parametrize("size", [0o77777777777, 0o77777777777 + 1, 9 << 30])
def test_sizes_of_more_than_eight_gib_are_written_and_read(size: int) -> None:
    block = tar_headers.build_header(TarEntry(tar_headers.REGULAR, b"big", size=size))
    assert tar_headers.parse_header(block, {}).size == size
    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == size


def test_a_stream_cut_anywhere_is_an_error() -> None:
    data = archive(info("file", size=700), info("n" * 200, size=1))
    end = data.rindex(b"x") + 1
    for cut in range(0, end, 100):
        with pytest.raises(TarError):
            run(data[:cut])


def test_a_damaged_header_is_an_error() -> None:
    data = bytearray(archive(info("file")))
    data[0] ^= 1
    with pytest.raises(TarError, match="checksum"):
        run(bytes(data))


@pytest.mark.parametrize(
    "records", [b"5 a=b", b"x a=b\n", b"6 abc\n", b"99 a=b\n", b"1 a=b\n", b"-6 a=b\n"]
)
def test_damaged_pax_records_are_an_error(records: bytes) -> None:
    with pytest.raises(TarError, match="pax"):
        list(tar_headers.pax_records(records))


def test_a_kind_of_entry_that_no_export_has_is_an_error() -> None:
    with pytest.raises(TarError, match="'M'"):
        run(archive(info("multi", b"M")))


def test_progress_counts_every_byte_that_came_in() -> None:
    data = archive(info("a", size=5000))
    seen: list[int] = []
    rewrite_tar(pieces(data, 1000), io.BytesIO(), NO_CHANGES, seen.append)
    assert sum(seen) == len(data)
