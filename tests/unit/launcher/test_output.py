"""Ranks' files become prefixed lines, whole ones only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ranks.output import PART_BYTES, Follower, rank_logs


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


PIECES = st.binary(max_size=6) | st.text("ab\r\n", max_size=8).map(str.encode)


@given(chunks=st.lists(PIECES, max_size=8), part=st.integers(1, 9))
def test_no_byte_is_lost_or_invented_however_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launcher.ranks.output.PART_BYTES", part)
        shown = follow(tmp_path_factory.mktemp("log") / "rank3.log", chunks)
    written = b"".join(chunks)
    lines = written.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert shown == b"".join(b"[r3] " + line + b"\n" for line in lines)
    assert shown.count(b"\r") == written.count(b"\r")


def test_windows_lines_keep_their_text(tmp_path: Path) -> None:
    shown = follow(tmp_path / "rank3.log", [b"one\r\ntwo\r\n"])
    assert shown == b"[r3] one\r\n[r3] two\r\n"


def test_a_progress_bar_is_printed_whole_and_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.ranks.output.PROGRESS_SECONDS", 0.0)
    shown = follow(tmp_path / "rank3.log", [b" 10%\r 50%\r", b" 90%\r", b" 100%\n", b"done\n"])
    assert shown == b"[r3]  10%\r 50%\r 90%\r 100%\n[r3] done\n"
    told = capsys.readouterr().err
    assert '"event": "progress", "rank": 3, "text": " 50%"' in told
    assert '"text": " 90%"' in told


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


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, PART_BYTES, 3 * PART_BYTES + 1])
def test_a_long_line_stays_one_line(tmp_path: Path, size: int) -> None:
    shown = follow(tmp_path / "rank3.log", [b"a\n" + b"x" * size, b"y\n", b"z" * size])
    assert shown == b"[r3] a\n[r3] " + b"x" * size + b"y\n[r3] " + b"z" * size + b"\n"


def test_the_unfinished_line_of_a_file_that_was_replaced_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "rank3.log"
    path.write_bytes(b"attempt 0\nlast wor")
    shown: list[bytes] = []
    follower = Follower(lambda: {path: 3}, shown.append)
    follower.look()
    path.rename(tmp_path / "kept")
    path.write_bytes(b"attempt 1\n")
    follower.start()
    follower.finish()
    assert b"".join(shown) == b"[r3] attempt 0\n[r3] last wor\n[r3] attempt 1\n"


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
