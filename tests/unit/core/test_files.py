"""Whole files only, tree hashes, and one run at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slipway.core import (
    SlipwayError,
    exclusive,
    read_note,
    tree_sha256,
    write_atomic,
    write_note,
)


def test_a_failed_write_leaves_the_old_file_and_no_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    write_atomic(target, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slipway.core.files.os.fsync", full)
    with pytest.raises(SlipwayError, match="No space left on device"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_parent_that_is_a_file_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for inside in ("record.json", "deeper/record.json"):
        with pytest.raises(SlipwayError, match="cannot write"):
            write_atomic(tmp_path / "file" / inside, "new")


def make_tree(root: Path) -> Path:
    (root / "a").mkdir(parents=True)
    (root / "a" / "one.sh").write_text("echo 1\n")
    (root / "two").write_text("2")
    return root


def test_tree_hash_ignores_caches_dates_and_umask(tmp_path: Path) -> None:
    one, other = make_tree(tmp_path / "1"), make_tree(tmp_path / "2")
    (other / "two").chmod(0o600)
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "x.pyc").write_text("cache")
    (other / ".hidden").write_text("editor state")
    assert tree_sha256(one) == tree_sha256(other)


@pytest.mark.parametrize("change", ["content", "name", "executable"])
def test_tree_hash_sees_content_names_and_the_executable_bit(tmp_path: Path, change: str) -> None:
    one, other = make_tree(tmp_path / "1"), make_tree(tmp_path / "2")
    if change == "content":
        (other / "two").write_text("3")
    elif change == "name":
        (other / "two").rename(other / "three")
    else:
        (other / "two").chmod(0o755)
    assert tree_sha256(one) != tree_sha256(other)


def test_a_note_is_what_was_kept_or_none_whatever_byte_of_it_is_damaged(tmp_path: Path) -> None:
    path, value = tmp_path / "below" / "note", {"size": 7, "files": [["bin/tool", "é"]]}
    assert read_note(path) is None
    write_note(path, value)
    whole = path.read_bytes()
    assert read_note(path) == value
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert read_note(path) is None
    for place, byte in enumerate(whole):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([byte ^ 1 << bit]) + whole[place + 1 :])
            assert read_note(path) in (None, value)


HOLDER = """
import sys
from pathlib import Path
from slipway.core.file_lock import exclusive
with exclusive(Path(sys.argv[1]), "ship local"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(SlipwayError, match=rf"inv ship local \(pid {holder.pid}\)"),
            exclusive(lock, "build other"),
        ):
            pass
        holder.kill()
    with exclusive(lock, "build other"):  # the kernel dropped the lock with its holder
        assert "build other" in lock.read_text()
