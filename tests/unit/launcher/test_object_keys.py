"""Which keys become which files, and which are refused, whatever is in the bucket or the target."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import FETCH_SHORT, LaunchError
from launcher.data import file_tree, object_keys
from launcher.data.object_keys import fault_of_file_name, key_path, map_keys

#: Parts of paths that mean something to somebody, between slashes, next to any text.
PARTS = st.one_of(
    st.sampled_from(
        ["", ".", "..", "...", "a", "b", " ", "~", "*", "-rf", ".launch-fetched.json", "\n", "\0",
         "\x07", "\x7f", "\x85", "\r", "x\ty", "\u202e", "\udc80", "ü" * 127, "ü" * 128, "n" * 255,
         "n" * 256, "C:", "\\", "link", "circle"]
    ),
    st.text(max_size=6),
)  # fmt: skip
KEYS = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


@given(st.lists(KEYS, max_size=6))
def test_whatever_the_keys_are_every_file_is_below_the_target_and_its_own(keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside, root = Path(name, "outside"), Path(name, "target")
        outside.mkdir()
        root.mkdir()
        (root / "link").symlink_to(outside)
        (root / "circle").symlink_to(root)
        refused: LaunchError | None = None
        paths: dict[str, Path] = {}
        try:
            paths = map_keys(dict.fromkeys(keys), root)
        except LaunchError as error:
            refused = error
        if refused is not None:
            assert refused.code == FETCH_SHORT
            assert "\n" not in str(refused)
            assert any(object_keys.shown(key)[:20] in str(refused) for key in keys)
            return
        top = os.path.realpath(root)
        for path in paths.values():
            assert os.path.realpath(path.parent).startswith(top)
            assert ".." not in path.parts
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(path))  # none is in the way of another, and all names can be made
        assert all(path.read_text() == str(path) for path in paths.values())
        assert list(outside.iterdir()) == []
        files = {key for key in keys if key.strip("/") and not key.endswith("/")}
        assert set(paths) == files


@pytest.mark.parametrize(
    ("key", "path"),
    [("a", "a"), ("/part-1.bin", "part-1.bin"), ("a//b", "a/b"), ("//a///b", "a/b"),
     (" a /b ", " a /b "), ("~/x", "~/x"), ("...", "..."), ("a\\b", "a\\b"), ("n" * 255, "n" * 255),
     ("*?[1]", "*?[1]"), (".hidden", ".hidden"), ("launch-x", "launch-x")],
)  # fmt: skip
def test_an_ordinary_key_becomes_a_path(key: str, path: str) -> None:
    assert key_path(key) == path


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("../../etc/cron.d/evil", "'..' in it would lead elsewhere"),
        ("a/../b", "'..' in it would lead elsewhere"),
        ("a/./b", "'.' in it would lead elsewhere"),
        ("a\nb", r"'a\nb' can not become a file: it holds a control character"),
        ("a\x1b[2J", r"'a\x1b[2J' can not become a file: it holds a control character"),
        ("a/" + "ü" * 128, "a name in it has more than 255 bytes"),
        (".launch-fetched.json", "the launcher's own notes"),
        ("sub/.launch-x.lock", "the launcher's own notes"),
        ("a\udcff", "it is not UTF-8"),
    ],
)
def test_a_key_that_can_be_no_file_is_refused_by_its_name(key: str, why: str) -> None:
    with pytest.raises(LaunchError) as caught:
        map_keys(["fine", key], Path("/target"))
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["a", "a/b"], ["'a/b'", "'a'"]),
        (["x/a/b/c", "x/a"], ["'x/a/b/c'", "'x/a'"]),
        (["a//b", "a/b"], ["'a/b'", "'a//b'"]),
        (["/a", "a"], ["'a'", "'/a'"]),
    ],
)
def test_keys_that_can_not_be_files_together_are_both_named(
    keys: list[str], named: list[str]
) -> None:
    with pytest.raises(LaunchError) as caught:
        map_keys(keys, Path("/target"))
    assert all(name in str(caught.value) for name in named)


def test_folder_markers_are_no_files_and_in_nobodys_way() -> None:
    assert map_keys(["", "/", "a/", "a/b/", "a//", "a"], Path("/t")) == {"a": Path("/t/a")}


def test_a_link_in_the_target_is_followed_inside_of_it_only(tmp_path: Path) -> None:
    target = tmp_path / "real"
    (target / "d").mkdir(parents=True)
    (tmp_path / "target").symlink_to("real")
    (target / "inner").symlink_to("d")
    (target / "out").symlink_to("..")
    (target / "file").symlink_to("/etc/passwd")
    (target / "d" / "deep").symlink_to("../out")
    (target / "gone").symlink_to("../nowhere")
    root = tmp_path / "target"
    assert map_keys(["inner/x"], root) == {"inner/x": root / "inner" / "x"}
    for key in ("out/x", "file", "d/deep/x", "inner/deep/x", "gone", "out/real/d/x"):
        with pytest.raises(LaunchError, match="is a link out of the target"):
            map_keys([key], root)
    with pytest.raises(LaunchError, match="by a link it would be the same file as 'd/x'"):
        map_keys(["d/x", "inner/x"], root)


@given(st.text(max_size=300))
def test_a_key_is_shown_on_one_line_whatever_is_in_it(text: str) -> None:
    assert len(object_keys.shown(text).splitlines()) <= 1


@given(KEYS)
def test_what_is_uploaded_can_be_fetched_again_under_its_name(path: str) -> None:
    normal = os.path.normpath(path) == path and not path.startswith("/")
    if normal and path not in (".", "..") and not fault_of_file_name(path):
        assert key_path(path) == path


def test_what_can_be_no_object_is_left_out_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "out"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").touch()
    (root / "sub" / "file").write_text("abc")
    (root / "copy").symlink_to("sub/file")
    (root / "broken").symlink_to("nothing")
    (root / "self").symlink_to("self")
    (root / "sub" / "deep" / "up").symlink_to("..")
    (root / ".launch-note").write_text("ours")
    os.mkfifo(root / "pipe")
    Path(os.fsdecode(bytes(root) + b"/\xff.bin")).write_text("x")
    (root / "new\nline").write_text("x")
    tree = file_tree.read_tree(root)
    assert tree.sizes == {"empty": 0, "sub/file": 3, "copy": 3}
    assert tree.unreadable == {}
    rows = file_tree.skipped_rows(tree.skipped)
    assert rows == sorted(
        [
            "broken: a broken link",
            r"new\nline: it holds a control character",
            "pipe: neither a file nor a directory",
            "self: a broken link (Too many levels of symbolic links)",
            "sub/deep/up: a link to a directory that it is in",
            r"\xff.bin: it is not UTF-8",
        ],
        key=lambda row: tree_key(row),
    )


def tree_key(row: str) -> str:
    """Rows come in the order of the names as they are, not as they are shown."""
    return row.replace("\\n", "\n").replace("\\xff", "\udcff")


def test_six_hundred_levels_are_read_without_a_traceback(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(600):  # more would be too much for the one who cleans up
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    tree = file_tree.read_tree(tmp_path)
    assert tree.files == {}
    assert list(tree.skipped.values()) == ["its path has more than 1024 bytes"]


def test_a_checkpoints_names_begin_with_its_own(tmp_path: Path) -> None:
    (tmp_path / "ck" / "d").mkdir(parents=True)
    (tmp_path / "ck" / "d" / "f").write_text("x")
    (tmp_path / "one.pt").write_text("xy")
    assert file_tree.read_tree(tmp_path / "ck", below="ck").sizes == {"ck/d/f": 1}
    assert file_tree.read_tree(tmp_path / "one.pt", below="one.pt").sizes == {"one.pt": 2}
    assert file_tree.read_tree(tmp_path / "none").sizes == {}
