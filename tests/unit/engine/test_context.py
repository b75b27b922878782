"""A build context is the same stream for the same files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from slipway.engine import ContextFile, EngineError
from slipway.engine.buildkit.build_context import check_context_paths, context_tar


def _members(files: list[ContextFile]) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(context_tar(files)))) as tar:
        return [(info, stream.read() if (stream := tar.extractfile(info)) else b"") for info in tar]


def test_the_stream_is_the_same_in_any_order_and_at_any_time(tmp_path: Path) -> None:
    source = tmp_path / "wheel"
    source.write_bytes(b"wheel" * 1000)
    files = [ContextFile("b/wheel", source), ContextFile("a", b"A"), ContextFile("b/c/d", b"D")]
    first = b"".join(context_tar(files))
    source.touch()
    source.chmod(0o600)
    assert b"".join(context_tar(files[::-1])) == first


def test_members_are_sorted_owned_by_root_and_dated_1970() -> None:
    members = _members(
        [ContextFile("z", b"zz", 0o755), ContextFile("a/b/c", b"c"), ContextFile("a/x", b"")]
    )
    assert [(info.name, oct(info.mode), content) for info, content in members] == [
        ("a", "0o755", b""),
        ("a/b", "0o755", b""),
        ("a/b/c", "0o644", b"c"),
        ("a/x", "0o644", b""),
        ("z", "0o755", b"zz"),
    ]
    assert all((info.mtime, info.uid, info.gid, info.uname) == (0, 0, 0, "") for info, _ in members)


def test_names_longer_than_ustar_allows_survive() -> None:
    name = "/".join(["wheelhouse" * 9, "größe" * 20, "x" * 120])
    assert _members([ContextFile(name, b"content")])[-1][0].name == name


def test_a_file_larger_than_a_chunk_is_not_read_at_once(tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(5 * 1024 * 1024 + 7)
    pieces = list(context_tar([ContextFile("large", source)]))
    assert max(len(piece) for piece in pieces) <= 1 << 20
    assert len(b"".join(pieces)) % tarfile.BLOCKSIZE == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../b", "", "."])
def test_a_path_outside_the_context_is_refused(path: str) -> None:
    with pytest.raises(EngineError, match="not a path inside the build context"):
        check_context_paths([ContextFile(path, b"")])


def test_a_path_given_twice_is_refused() -> None:
    with pytest.raises(EngineError, match="a/b is twice"):
        check_context_paths([ContextFile("a/b", b""), ContextFile("a//b", b"")])


def test_a_path_that_is_file_and_folder_is_refused() -> None:
    with pytest.raises(EngineError, match="a is a file and a folder"):
        check_context_paths([ContextFile("a", b""), ContextFile("a/b", b"")])


def test_a_missing_source_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file") as caught:
        list(context_tar([ContextFile("a", tmp_path / "gone")]))
    assert caught.value.where == str(tmp_path / "gone")


def test_a_file_that_grows_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(b"x" * (1 << 20))
    stream = context_tar([ContextFile("log", source)])
    next(stream)  # the header, with the size as it was
    with source.open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineError, match="grew while it was sent"):
        list(stream)
