"""A digest that is asked for once while a file stays as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.core import digests, recall_sha256, sha256_file


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files had been left alone for a while."""
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []

    def read(path: Path) -> str:
        reads.append(path)
        return sha256_file(path)

    monkeypatch.setattr(digests, "sha256_file", read)
    return reads


def test_a_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    file = tmp_path / "wheel"
    file.write_bytes(b"content")
    settle(monkeypatch)
    assert {recall_sha256(file) for _ in range(3)} == {sha256_file(file)}
    assert reads == [file]


def rewritten(file: Path) -> None:
    file.write_bytes(b"CONTENT")


def rewritten_with_its_time(file: Path) -> None:
    status = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"CONTENT")
    other.rename(file)


@pytest.mark.parametrize("change", [rewritten, rewritten_with_its_time, replaced])
def test_a_file_that_changes_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    file = tmp_path / "wheel"
    file.write_bytes(b"content")
    settle(monkeypatch)
    before = recall_sha256(file)
    time.sleep(0.05)  # more than a tick of the file system's clock
    change(file)
    assert recall_sha256(file) == sha256_file(file) != before


def test_a_file_that_was_written_just_now_is_not_trusted_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    file = tmp_path / "wheel"
    file.write_bytes(b"content")
    recall_sha256(file)
    recall_sha256(file)
    assert reads == [file, file]
