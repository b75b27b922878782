"""What the kernel and the host's own tools make of linked images, in the corners of the format."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipway.core import differing_pieces
from slipway.squashfs import (
    DirectorySource,
    LayerCache,
    SqshOptions,
    compile_layers,
    link_image,
)
from slipway.squashfs.link import linker as linking
from slipway.squashfs.link.data_layout import arrange_data
from tests.support.squashfs_rig import (
    differences,
    facts_of_folder,
    facts_of_image,
    make_socket,
    mounted,
)
from tests.unit.squashfs.test_layers import archive, member, source


@contextmanager
def kernels_view(image: Path, folder: Path) -> Iterator[Path]:
    with mounted("squashfs", str(image), folder / "kernel", "loop") as mount:
        yield mount


def test_the_kernel_finds_every_name_of_a_huge_directory(tmp_path: Path) -> None:
    names = [f"{number:05d}{'-long' * (number % 40)}" for number in range(40_000)]
    data = archive([member(f"d/{name}") for name in names])
    options = SqshOptions("zstd", 1, 1 << 17)
    with compile_layers(LayerCache(tmp_path / "cache"), [source(data)], options) as layers:
        link_image(layers, tmp_path / "a.sqsh", options)
    with kernels_view(tmp_path / "a.sqsh", tmp_path) as mount:
        assert sorted(os.listdir(mount / "d")) == sorted(names)  # noqa: PTH208
        for name in names[::97]:
            assert (mount / "d" / name).stat().st_size == 0
        assert not (mount / "d" / "absent").exists()


def test_the_kernel_reads_files_beyond_4_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The image is sparse: its data begins after 5 GiB of nothing.
    monkeypatch.setattr(
        linking, "arrange_data", lambda merged, at: arrange_data(merged, at + (5 << 30))
    )
    content = os.urandom(3 << 20)
    members = [member("far", data=content), member("tail", data=b"in a fragment")]
    members.append(member("other", tarfile.LNKTYPE, linkname="far"))
    options = SqshOptions("zstd", 1, 1 << 17)
    with compile_layers(
        LayerCache(tmp_path / "cache"), [source(archive(members))], options
    ) as layers:
        link_image(layers, tmp_path / "a.sqsh", options)
    assert (tmp_path / "a.sqsh").stat().st_size > 5 << 30
    with kernels_view(tmp_path / "a.sqsh", tmp_path) as mount:
        assert (mount / "far").read_bytes() == content
        assert (mount / "tail").read_bytes() == b"in a fragment"
        assert (mount / "other").stat().st_nlink == 2


@pytest.mark.parametrize("compressor", ["zstd", "gzip", "lz4", "lzo", "xz", "none"])
def test_the_kernel_reads_every_compressor(tmp_path: Path, compressor: str) -> None:
    content = {"text": b"slipway " * 50_000, "noise": os.urandom(300_000), "small": b"x"}
    data = archive([member(name, data=value) for name, value in content.items()])
    options = SqshOptions(compressor, None, 1 << 17)
    with compile_layers(LayerCache(tmp_path / "cache"), [source(data)], options) as layers:
        link_image(layers, tmp_path / "a.sqsh", options)
    with kernels_view(tmp_path / "a.sqsh", tmp_path) as mount:
        assert {path.name: path.read_bytes() for path in mount.iterdir()} == content


def test_images_of_mksquashfs_are_read_as_the_kernel_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    make_socket(folder / "socket")
    for number in range(300):
        (folder / f"f{number}").write_bytes(os.urandom(number * 37))
        os.setxattr(folder / f"f{number}", "user.shared", b"value " * 100)
    (folder / "sparse").write_bytes(bytes(400_000) + b"end")
    os.link(folder / "f7", folder / "hard")
    os.mkfifo(folder / "fifo")
    for compressor in ("zstd", "gzip", "lzo", "lz4", "xz"):
        image = tmp_path / f"{compressor}.sqsh"
        command = ["mksquashfs", str(folder), str(image), "-comp", compressor, "-b", "16384"]
        subprocess.run([*command, "-no-progress", "-quiet"], check=True)
        with kernels_view(image, tmp_path) as mount:
            found = differences(facts_of_image(image), facts_of_folder(mount))
        assert not found, (compressor, found)


def test_sockets_and_sparse_files_of_a_layer_directory_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    folder.mkdir()
    make_socket(folder / "socket")
    with (folder / "sparse").open("wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"island")
    options = SqshOptions("zstd", 1, 1 << 20)
    with compile_layers(
        LayerCache(tmp_path / "cache"), [DirectorySource("sha256:1", folder)], options
    ) as layers:
        link_image(layers, tmp_path / "a.sqsh", options)
    assert (tmp_path / "a.sqsh").stat().st_size < 100_000
    wanted = facts_of_folder(folder)
    with kernels_view(tmp_path / "a.sqsh", tmp_path) as mount:
        assert not differences(facts_of_folder(mount), wanted)


@contextmanager
def reflinking_disk(folder: Path) -> Iterator[Path]:
    disk, mount = folder / "disk", folder / "xfs"
    with disk.open("wb") as stream:
        stream.truncate(400 << 20)
    mount.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_where_blocks_can_be_shared_an_image_takes_no_second_room(tmp_path: Path) -> None:
    noise = os.urandom(40 << 20)
    lower = archive([member("a", data=noise[: 10 << 20]), member("b", data=noise), member("c")])
    upper = archive([member(".wh.a"), member("new", data=b"new")])
    options = SqshOptions("zstd", 1, 1 << 20)
    with reflinking_disk(tmp_path) as disk:
        sources = [source(lower), source(upper)]
        with compile_layers(LayerCache(disk / "cache"), sources, options) as layers:
            before = shutil.disk_usage(disk).used
            made = link_image(layers, disk / "a.sqsh", options)
            os.sync()
            assert shutil.disk_usage(disk).used - before < 2 << 20
        assert made.size > 40 << 20
        assert differing_pieces(disk / "a.sqsh", made.pieces) is None
        with kernels_view(disk / "a.sqsh", tmp_path) as mount:
            digest = hashlib.sha256((mount / "b").read_bytes()).digest()
            assert digest == hashlib.sha256(noise).digest()
            assert not (mount / "a").exists()
