"""Folders that a layer's archive leaves out: the same whoever unpacked it, and told cheaply."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError
from slipway.squashfs import (
    ArchiveHeaders,
    DirectorySource,
    LayerCache,
    LayerError,
    Source,
    SqshOptions,
    TarSource,
    compile_layers,
    link_image,
)
from slipway.squashfs.compile.layer_stream import HeaderStream
from tests.support.squashfs_rig import archive_headers
from tests.unit.squashfs.test_layers import Member, archive, member

OPTIONS = SqshOptions("zstd", 1, 4096)
FOLDER = tarfile.DIRTYPE
LOWER = archive(
    [member("a", FOLDER, mode=0o1777, mtime=5), member("a/b", FOLDER, mode=0o711, mtime=6, uid=7)]
)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_source(data: bytes) -> TarSource:
    return TarSource(digest_of(data), lambda: iter([data]))


def never() -> Iterator[bytes]:
    raise AssertionError("read without need")


NEVER = TarSource("sha256:0", never)


def unpack(data: bytes, folder: Path, made_mode: int) -> None:
    """As engines do: what the archive leaves out is made up, and folders get their times last."""
    folder.mkdir()
    described: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            path = folder / info.name
            for above in reversed(path.relative_to(folder).parents):
                if not (folder / above).exists():
                    (folder / above).mkdir()
                    (folder / above).chmod(made_mode)
            if info.isdir():
                path.mkdir(exist_ok=True)
                described.append(info)
            else:
                content = tar.extractfile(info)
                assert content is not None
                path.write_bytes(content.read())
                path.chmod(info.mode)
                os.utime(path, (info.mtime, info.mtime))
    for info in described:
        path = folder / info.name
        path.chmod(info.mode)
        os.chown(path, info.uid, info.gid)
        os.utime(path, (info.mtime, info.mtime))


def image(folder: Path, name: str, *layers: Source) -> bytes:
    path = folder / f"{name}.sqsh"
    with compile_layers(LayerCache(folder / f"{name}-cache"), layers, OPTIONS) as compiled:
        link_image(compiled, path, OPTIONS)
    return path.read_bytes()


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=4).map("/".join)


@given(
    files=st.sets(PATHS, min_size=1, max_size=5),
    named=st.sets(PATHS | st.sampled_from(["a", "b"]), max_size=4),
    made_mode=st.sampled_from([0o755, 0o1777, 0o700]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_an_engine_made_up_is_not_in_the_image(
    files: set[str], named: set[str], made_mode: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("layer")
    files = {path + "/file" for path in files}
    members: list[Member] = [member(path, FOLDER, mode=0o710, mtime=9) for path in sorted(named)]
    data = archive([*members, *(member(path, data=b"x" * 5000) for path in sorted(files))])
    unpack(data, folder / "unpacked", made_mode)
    plain, below = tar_source(data), tar_source(LOWER)
    wanted = image(folder, "archive", below, plain)
    layer = DirectorySource(plain.digest, folder / "unpacked", plain)
    assert image(folder, "by-archive", below, layer) == wanted
    kept = DirectorySource(plain.digest, folder / "unpacked", NEVER, archive_headers(data))
    assert image(folder, "by-headers", below, kept) == wanted


def test_nothing_more_is_read_where_all_folders_have_times_of_an_archive(tmp_path: Path) -> None:
    data = archive([member("a", FOLDER, mtime=9), member("a/file", data=b"x")])
    unpack(data, tmp_path / "unpacked", 0o755)
    headers = ArchiveHeaders(never, never)
    layer = DirectorySource(digest_of(data), tmp_path / "unpacked", NEVER, headers)
    assert image(tmp_path, "folder", layer) == image(tmp_path, "archive", tar_source(data))


def test_names_alone_settle_a_layer_that_was_built_here(tmp_path: Path) -> None:
    """Times of now everywhere, as in a container's own folder; the archive was made of it."""
    folder = tmp_path / "unpacked"
    (folder / "a" / "b").mkdir(parents=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in ("a", "a/b"):
            info = tar.gettarinfo(folder / path, f"./{path}/")
            info.mtime = int(info.mtime)
            tar.addfile(info)
    data = out.getvalue()
    headers = ArchiveHeaders(archive_headers(data).names, never)
    layer = DirectorySource(digest_of(data), folder, NEVER, headers)
    assert image(tmp_path, "folder", layer) == image(tmp_path, "archive", tar_source(data))


NOTES = {"user.of-the-archive": b"1"}


@pytest.mark.parametrize("named", [{}, NOTES], ids=["none in the archive", "one in the archive"])
def test_extended_attributes_are_those_of_the_archive(
    tmp_path: Path, named: dict[str, bytes]
) -> None:
    """A step of a build set them, or the folder has them in the layer below."""
    records = {f"SCHILY.xattr.{name}": value.decode() for name, value in named.items()}
    data = archive(
        [
            member("a", FOLDER, mtime=5, pax_headers=records),
            member("a/file", data=b"x", pax_headers=records),
        ]
    )
    folder = tmp_path / "unpacked"
    unpack(data, folder, 0o755)
    for path in (folder / "a", folder / "a" / "file"):
        for name, value in {**named, "user.other": b"2"}.items():
            os.setxattr(path, name, value)
    plain = tar_source(data)
    wanted = image(tmp_path, "archive", plain)
    layer = DirectorySource(plain.digest, folder, plain)
    assert image(tmp_path, "by-archive", layer) == wanted
    kept = DirectorySource(plain.digest, folder, NEVER, archive_headers(data))
    assert image(tmp_path, "by-headers", kept) == wanted


@pytest.mark.parametrize("file", ["a/file", "a/b/file", "a/b/c/file"])
def test_what_containerd_made_up_in_an_opaque_folder_is_as_the_archive_says(
    tmp_path: Path, file: str
) -> None:
    """It has mode, owner and time of the folder below; the archive has no header of it."""
    data = archive([member(file, data=b"x"), member("a/.wh..wh..opq", data=b"")])
    folder = tmp_path / "unpacked"
    unpack(archive([member(file, data=b"x")]), folder, 0o1777)
    os.setxattr(folder / "a", "user.overlay.opaque", b"y")
    for above in Path(file).parents[:-1]:
        os.utime(folder / above, (5, 5))
    plain, below = tar_source(data), tar_source(LOWER)
    layer = DirectorySource(plain.digest, folder, plain)
    assert image(tmp_path, "folder", below, layer) == image(tmp_path, "archive", below, plain)


def test_a_store_that_was_copied_still_tells_what_was_made_up(tmp_path: Path) -> None:
    data = archive([member("a/b/file", data=b"x")])
    unpack(data, tmp_path / "unpacked", 0o755)
    for path in (tmp_path / "unpacked" / "a" / "b", tmp_path / "unpacked" / "a"):
        os.utime(path, ns=(1_700_000_000_123_456_789,) * 2)  # as cp -a and rsync keep it
    layer = DirectorySource(digest_of(data), tmp_path / "unpacked", tar_source(data))
    assert image(tmp_path, "folder", layer) == image(tmp_path, "archive", tar_source(data))


@pytest.mark.parametrize("damage", ["names", "pieces", "cut"])
def test_damage_to_what_an_engine_keeps_beside_a_layer_sends_to_the_archive(
    tmp_path: Path, damage: str
) -> None:
    data = archive([member("a/b/file", data=b"x" * 700)])
    unpack(data, tmp_path / "unpacked", 0o700)
    good = archive_headers(data)

    def broken() -> Iterator[bytes]:
        raise SlipwayError("damaged")

    headers = {
        "names": ArchiveHeaders(broken, good.pieces),
        "pieces": ArchiveHeaders(good.names, broken),
        "cut": ArchiveHeaders(good.names, lambda: iter([data[:700]])),
    }[damage]
    plain = tar_source(data)
    layer = DirectorySource(plain.digest, tmp_path / "unpacked", plain, headers)
    assert image(tmp_path, "folder", layer) == image(tmp_path, "archive", plain)


def test_an_archive_with_another_content_decides_on_nothing(tmp_path: Path) -> None:
    data = archive([member("a/file", data=b"x")])
    unpack(data, tmp_path / "unpacked", 0o755)
    other = TarSource(digest_of(data), lambda: iter([archive([member("a", FOLDER)])]))
    layer = DirectorySource(digest_of(data), tmp_path / "unpacked", other)
    with pytest.raises(LayerError, match="content has digest"):
        image(tmp_path, "folder", layer)


def test_headers_are_read_and_contents_passed_over() -> None:
    stream = HeaderStream([b"ab", b"cd", 5, b"ef", 2])
    assert stream.read(3) == b"abc"
    stream.skip(4)  # the last header byte and three of the content
    with pytest.raises(LayerError, match="not kept whole"):
        stream.read(1)
    stream.skip(2)
    assert stream.read(2) == b"ef"
    assert not stream.at_end()
    stream.skip_padding(512)
    assert stream.at_end()
    with pytest.raises(LayerError, match="ends in the middle"):
        stream.skip(1)
