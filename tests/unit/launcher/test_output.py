"""Ranks' files become prefixed lines, whole ones only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ranks.output import LINE_BYTES, Follower, rank_logs


def follow(path: Path, chunks: list[bytes]) -> bytes:
    """What is printed when a rank writes these chunks, looked at after each."""
    path.write_bytes(b"")
    shown: list[bytes] = []
    follower = Follower(lambda: {path: 3}, shown.append)
    with path.open("ab") as file:
        for chunk in chunks:
            file.write(chunk)
            file.flush()
            follower.look()
    follower.start()
    follower.finish()
    return b"".join(shown)


@given(st.lists(st.text("ab\n", max_size=6).map(str.encode), max_size=8))
def test_lines_come_whole_and_in_order_however_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    shown = follow(tmp_path_factory.mktemp("log") / "rank3.log", chunks)
    lines = b"".join(chunks).split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert shown == b"".join(b"[r3] " + line + b"\n" for line in lines)


def test_a_progress_bar_shows_where_it_ended(tmp_path: Path) -> None:
    shown = follow(tmp_path / "rank3.log", [b" 10%\r 50%\r 100%\n", b"done\n"])
    assert shown == b"[r3]  100%\n[r3] done\n"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_begun_anew_is_read_from_its_beginning(
    tmp_path: Path, replaced: bool
) -> None:
    path = tmp_path / "rank3.log"
    path.write_text("attempt 0\nfailed\n")
    shown: list[bytes] = []
    follower = Follower(lambda: {path: 3}, shown.append)
    follower.look()
    with path.open("a") as file:
        file.write("last words\n")
    follower.look()
    if replaced:
        path.rename(tmp_path / "kept")  # so that its inode is not given out again
    path.write_text("attempt 1\n")
    follower.start()
    follower.finish()
    lines = ["attempt 0", "failed", "last words", "attempt 1"]
    assert b"".join(shown).decode().splitlines() == [f"[r3] {line}" for line in lines]


def test_bytes_that_are_no_text_pass_through(tmp_path: Path) -> None:
    assert follow(tmp_path / "rank3.log", [b"\xff\xfe\x00\n"]) == b"[r3] \xff\xfe\x00\n"


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    size = LINE_BYTES + 1
    shown = follow(tmp_path / "rank3.log", [b"x" * size, b"y\n"])
    assert shown.replace(b"[r3] ", b"").replace(b"\n", b"") == b"x" * size + b"y"


def test_the_files_of_all_runners_are_found_with_their_global_ranks(tmp_path: Path) -> None:
    names = {
        "rank5.log": 5,
        "20260101_rank6.log": 6,
        "job-0_abc/attempt_0/1/stdout.log": 5,
        "job-0_abc/attempt_0/1/stderr.log": 5,
        "job-0_abc/attempt_1/0/stdout.log": 4,
    }
    for name in [*names, "other.log", "hostfile", "deep/rank.txt"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = rank_logs(tmp_path, first_rank=4)
    assert {str(path.relative_to(tmp_path)): rank for path, rank in found.items()} == names
