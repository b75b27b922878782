"""The copier, on real file systems: nothing is lost, nothing comes back, damage is found."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slipway.core import child_processes, command_line, measure
from slipway.storage import CopyError
from slipway.storage.tree_copy import compare_trees, copy_tree
from tests.support.storage.box import Disk, disk, run
from tests.support.storage.content import fingerprint

MIB = 1 << 20


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Disk]]:
    """An ext4 and an xfs, mounted for all tests of this file."""
    place = tmp_path_factory.mktemp("disks")
    with (
        disk(place / "ext4", place / "ext4.img", "ext4", 300 * MIB) as ext4,
        disk(place / "xfs", place / "xfs.img", "xfs", 320 * MIB) as xfs,
    ):
        yield {"ext4": ext4, "xfs": xfs}


@pytest.fixture
def folder(disks: dict[str, Disk]) -> Iterator[Callable[[str], Path]]:
    """A fresh folder on the disk of that kind."""
    made: list[Path] = []

    def make(kind: str) -> Path:
        place = disks[kind].place / f"test-{len(made)}"
        place.mkdir()
        made.append(place)
        return place

    yield make
    for place in made:
        shutil.rmtree(place)


def quiet(current: int) -> None:
    """No progress wanted."""


def make_tree(root: Path) -> Path:
    """One of everything that is in a data-root, and some of it twice."""
    tree = root / "tree"
    (tree / "lower" / "gone").mkdir(parents=True)
    (tree / "lower" / "gone" / "inside").write_text("deleted long ago")
    (tree / "lower" / "deleted").write_text("deleted long ago")
    upper = tree / "upper"
    (upper / "gone").mkdir(parents=True)
    os.setxattr(upper / "gone", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    os.link(upper / "deleted", upper / "deleted-too")  # whiteouts share an inode since Linux 5.8
    files = tree / "files"
    files.mkdir()
    (files / "data").write_bytes(os.urandom(300_000))
    os.link(files / "data", files / "same")
    (tree / "other").mkdir()
    os.link(files / "data", tree / "other" / "same")
    (files / "empty").touch()
    (files / "owned").write_text("x")
    os.chown(files / "owned", 1234, 4321)
    (files / "owned").chmod(0o4755)
    for name, value in (("user.a", b"\0\1"), ("trusted.b", b"t"), ("security.c", b"s")):
        os.setxattr(files / "owned", name, value)
    with (files / "sparse").open("wb") as sparse:
        sparse.seek(40 * MIB)
        sparse.write(b"in the middle")
        sparse.truncate(80 * MIB)
    (files / "link").symlink_to("/nowhere/at/all")
    os.chown(files / "link", 99, 98, follow_symlinks=False)
    os.setxattr(files / "link", "trusted.l", b"1", follow_symlinks=False)
    os.mkfifo(files / "fifo", 0o622)
    os.mknod(files / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(files / "device", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    odd = files / os.fsdecode(b"not \xff utf-8 \n")
    odd.write_text("odd")
    (files / "sticky").mkdir(mode=0o700)
    (files / "sticky").chmod(0o3777)
    for number in range(300):
        (tree / "many" / f"{number % 7}").mkdir(parents=True, exist_ok=True)
        (tree / "many" / f"{number % 7}" / f"{number}").write_bytes(b"x" * number)
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, ns=(1_500_000_000_123_456_789,) * 2, follow_symlinks=False)
    return tree


@pytest.mark.parametrize(("source", "target"), [("ext4", "xfs"), ("xfs", "ext4")])
def test_everything_survives_a_copy_there_and_back_byte_for_byte(
    folder: Callable[[str], Path], source: str, target: str
) -> None:
    tree, there, back = make_tree(folder(source)), folder(target) / "copy", folder(source) / "back"
    before = fingerprint(tree)
    copy_tree(tree, there, quiet)
    compare_trees(tree, there, quiet)
    copy_tree(there, back, quiet)
    assert fingerprint(there) == before
    assert fingerprint(back) == before
    assert (there / "files" / "sparse").stat().st_blocks * 512 < MIB
    assert measure(back).entries == len(before) - 1


def visible(tree: Path, place: Path) -> set[str]:
    """What an overlay of lower and upper shows."""
    (place / "merged").mkdir()
    (place / "work").mkdir()
    upper = place / "upper"  # overlayfs wants upper and work on one file system, and writes there
    subprocess.run(["cp", "-a", str(tree / "upper"), str(upper)], check=True)
    options = f"lowerdir={tree / 'lower'},upperdir={upper},workdir={place / 'work'}"
    run("mount", "-t", "overlay", "overlay", "-o", options, str(place / "merged"))
    try:
        return {str(p.relative_to(place / "merged")) for p in (place / "merged").rglob("*")}
    finally:
        run("umount", str(place / "merged"))


def test_deleted_files_stay_deleted_in_our_copy_and_come_back_in_a_plain_recursive_one(
    folder: Callable[[str], Path],
) -> None:
    tree = make_tree(folder("ext4"))
    assert visible(tree, folder("ext4")) == {"gone"}
    copy_tree(tree, folder("xfs") / "copy", quiet)
    copied = folder("xfs") / "copy2"
    copy_tree(tree, copied, quiet)
    assert visible(copied, folder("xfs")) == {"gone"}
    plain = folder("ext4") / "plain"
    subprocess.run(["cp", "-r", str(tree), str(plain)], check=True)
    assert "gone/inside" in visible(plain, folder("ext4"))


def test_an_interrupted_copy_is_finished_and_what_is_whole_is_kept(
    folder: Callable[[str], Path],
) -> None:
    tree, copy = make_tree(folder("ext4")), folder("xfs") / "copy"
    copy_tree(tree, copy, quiet)
    kept = (copy / "files" / "data").stat().st_ino
    (copy / "files" / "owned").unlink()
    (copy / "many" / "3" / "10").write_bytes(b"half")  # its time says so
    (copy / "files" / "same").unlink()
    copy_tree(tree, copy, quiet, resume=True)
    assert fingerprint(copy) == fingerprint(tree)
    assert (copy / "files" / "data").stat().st_ino == kept


def corrupt_sampled_file(copy: Path) -> None:
    path = copy / "big"
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def lose_whiteout(copy: Path) -> None:
    (copy / "upper" / "deleted").unlink()
    (copy / "upper" / "deleted").touch()


def split_hard_link(copy: Path) -> None:
    shutil.copy2(copy / "files" / "same", copy / "beside")
    (copy / "beside").replace(copy / "files" / "same")


def redirect_link(copy: Path) -> None:
    (copy / "files" / "link").unlink()
    (copy / "files" / "link").symlink_to("/elsewhere/at/all")


def lose_opaque_mark(copy: Path) -> None:
    os.removexattr(copy / "upper" / "gone", "trusted.overlay.opaque")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a file is missing": lambda copy: (copy / "files" / "empty").unlink(),
    "a file was added": lambda copy: (copy / "many" / "added").touch(),
    "a mode changed": lambda copy: (copy / "files" / "data").chmod(0o600),
    "an owner changed": lambda copy: os.chown(copy / "files" / "data", 5, 5),
    "an xattr is lost": lambda copy: os.removexattr(copy / "files" / "owned", "user.a"),
    "an opaque mark is lost": lose_opaque_mark,
    "a whiteout became a file": lose_whiteout,
    "a hard link was split": split_hard_link,
    "a link points elsewhere": redirect_link,
    "a byte of a large file changed": corrupt_sampled_file,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_copy_that_differs_is_refused(folder: Callable[[str], Path], damage: str) -> None:
    tree, copy = make_tree(folder("ext4")), folder("xfs") / "copy"
    with (tree / "big").open("wb") as big:
        big.write(b"b" * (65 * MIB))
    copy_tree(tree, copy, quiet)
    compare_trees(tree, copy, quiet)
    DAMAGE[damage](copy)
    with pytest.raises(CopyError, match="differs from its source"):
        compare_trees(tree, copy, quiet)


def test_a_full_disk_is_said_to_be_full(folder: Callable[[str], Path]) -> None:
    tree, target = folder("ext4") / "tree", folder("xfs")
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(20 * MIB))
    stats = os.statvfs(target)
    with (target / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, stats.f_bavail * stats.f_frsize - 4 * MIB)
    with pytest.raises(CopyError, match="ran out of space"):
        copy_tree(tree, target / "copy", quiet)


@pytest.mark.parametrize("comparing", [False, True])
def test_a_process_that_somebody_else_ends_is_told_and_not_waited_for(
    folder: Callable[[str], Path], comparing: bool
) -> None:
    tree, copy = make_tree(folder("ext4")), folder("xfs") / "copy"

    def workers() -> list[int]:
        return [
            pid for pid in child_processes(os.getpid()) if "serve_jobs" in str(command_line(pid))
        ]

    def end_workers(current: int) -> None:
        for pid in workers():
            os.kill(pid, signal.SIGKILL)

    if comparing:
        copy_tree(tree, copy, quiet)
    with pytest.raises(CopyError, match="ended from outside"):
        (compare_trees if comparing else copy_tree)(tree, copy, end_workers)
    assert workers() == []


def test_nothing_is_written_below_a_disk_that_vanished(folder: Callable[[str], Path]) -> None:
    tree = make_tree(folder("ext4"))
    place = folder("ext4") / "mounted"
    image = folder("ext4") / "image"
    with disk(place, image, "ext4", 40 * MIB) as vanishing:
        vanished: list[int] = []

        def vanish(current: int) -> None:
            if not vanished:
                vanished.append(current)
                vanishing.unmount()

        with pytest.raises((CopyError, OSError)):
            copy_tree(tree, place / "copy", vanish)
        assert vanished
        assert list(place.iterdir()) == []
