"""Folders that the launcher makes, and the disk that they are on. Other users: tests/system."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchError
from launcher.platforms import choose_disk, make_place, path_word, small_scratch
from launcher.platforms.local_disk import file_system, in_memory

MOUNTS = r"""
22 1 254:0 / / rw,relatime - overlay overlay rw,lowerdir=/lower,upperdir=/upper
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,mode=755
25 22 259:1 /x /opt/dlami/nvme rw shared:7 - ext4 /dev/nvme1n1 rw
26 22 259:1 /x /with\040blank rw - xfs /dev/nvme1n1 rw
27 25 0:23 / /opt/dlami/nvme/ram rw - ramfs none rw
28 22 0:24 / /fsx rw - lustre 10.0.0.1@tcp:/abc rw
29 28 259:2 / /fsx rw - ext4 /dev/nvme2n1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/home/me", "overlay"),
        ("/tmp", "tmpfs"),
        ("/tmp/x/y", "tmpfs"),
        ("/tmpfile", "overlay"),
        ("/opt/dlami/nvme/launch-0", "ext4"),
        ("/opt/dlami/nvme/ram/x", "ramfs"),
        ("/with blank/x", "xfs"),
        ("/fsx/x", "ext4"),  # the later mount hides the earlier
    ],
)
def test_a_paths_file_system_is_the_nearest_mount_above_it(
    tmp_path: Path, path: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system(path, mounts) == kind


def test_memory_is_known_for_what_it_is() -> None:
    assert in_memory("/dev/shm")
    assert not in_memory("/proc")


def test_a_real_disk_wins_over_memory_and_memory_is_a_warning(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    only = choose_disk({}, candidates=[missing, "/dev/shm"])
    assert str(only.path) == "/dev/shm"
    assert "in memory" in only.warning
    assert "--local-dir" in only.warning
    found = choose_disk({}, candidates=["/dev/shm", str(tmp_path)])
    assert found.warning == "" or in_memory(str(tmp_path))
    assert found.warning or "/dev/shm is memory" in found.why


def test_a_folder_in_which_others_may_replace_things_is_passed_by(tmp_path: Path) -> None:
    open_to_all, sticky = tmp_path / "open", tmp_path / "sticky"
    for folder, mode in ((open_to_all, 0o777), (sticky, 0o1777)):
        folder.mkdir()
        folder.chmod(mode)
    found = choose_disk({}, candidates=[str(open_to_all), str(sticky)])
    assert found.path == sticky
    assert "others may replace" in found.why
    with pytest.raises(LaunchError, match="--local-dir"):
        choose_disk({}, candidates=[str(open_to_all)])


def test_what_is_asked_for_is_taken_and_tmpdir_comes_first(tmp_path: Path) -> None:
    assert choose_disk({}, "/some/where").path == Path("/some/where")
    second = tmp_path / "second"
    second.mkdir()
    assert choose_disk({"TMPDIR": str(tmp_path)}, candidates=[str(second)]).path == tmp_path


def test_links_are_followed_where_nobody_else_writes(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "absolute").symlink_to(tmp_path / "real")
    make_place(tmp_path / "link" / "absolute" / "a" / "b")
    assert (tmp_path / "real" / "a" / "b").is_dir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LaunchError, match="link to itself"):
        make_place(tmp_path / "loop" / "a")


def test_a_private_folder_is_made_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_place(tmp_path / "a" / "b" / "c", private=2)
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (made.parent.parent, made.parent, made)]
    assert modes == [0o777, 0o700, 0o700]


def test_what_cannot_be_made_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(LaunchError) as error:
            make_place(path)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(("/proc/nothing ", f"{tmp_path}/file "))


def test_notes_have_one_place_for_all_processes(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path)}
    assert small_scratch(env, "once") == small_scratch(env, "once")
    assert small_scratch({"TMPDIR": "/no/such"}, "once").parts[1] == "tmp"


@given(st.text(max_size=300))
def test_a_jobs_name_is_one_word_in_a_path(name: str) -> None:
    word = path_word(name)
    assert set(word) <= set(string.ascii_letters + string.digits + "_.+@=-")
    assert word
    assert not word.startswith(".")
    assert len(word) <= 200


@given(st.text(max_size=8), st.text(max_size=8))
def test_two_jobs_have_two_words(one: str, other: str) -> None:
    assert (path_word(one) == path_word(other)) == (one == other)
