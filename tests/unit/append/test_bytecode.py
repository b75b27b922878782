"""What is kept of a layer that a step which compiles has left."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from slipway.append import bytecode_tar
from slipway.append.layer_blobs import MTIME

SITE = "opt/venv/lib/python3.12/site-packages"
CACHE = f"{SITE}/pkg/__pycache__"


def engine_tar(order: list[str], time: int, prefix: str = "") -> bytes:
    """Folders end with a slash; `etc/` is what an engine's own mounts touch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in order:
            entry = tarfile.TarInfo(prefix + path.rstrip("/"))
            entry.mtime, entry.mode = time, 0o600
            if path.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(entry)
            else:
                entry.size = len(path)
                tar.addfile(entry, io.BytesIO(path.encode()))
    return buffer.getvalue()


PATHS = ["etc/", "opt/", f"{SITE}/", f"{SITE}/pkg/", f"{CACHE}/"]
FILES = [f"{CACHE}/a.cpython-312.pyc", f"{CACHE}/{'b' * 130}.cpython-312.pyc"]
OTHERS = ["etc/resolv.conf", f"{SITE}/pkg/a.py", f"{SITE}/pkg/left.pyc", "__pycache__/x.txt"]


@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_bytecode_and_its_folders_are_kept_the_same_whoever_wrote_the_tar(
    tmp_path: Path, prefix: str
) -> None:
    one = engine_tar([*PATHS, *FILES, *OTHERS], 1)
    other = engine_tar([*PATHS, *OTHERS, *reversed(FILES)], 2_000_000_000, prefix)
    kept = b"".join(bytecode_tar(iter([one]), tmp_path))
    assert b"".join(bytecode_tar(iter([other[:700], other[700:]]), tmp_path)) == kept
    assert list(tmp_path.iterdir()) == []
    with tarfile.open(fileobj=io.BytesIO(kept)) as tar:
        members = {member.name: member for member in tar}
        assert [*members] == [CACHE, *FILES]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(MTIME, 0, 0, "")}
        assert [oct(member.mode) for member in members.values()] == ["0o755", "0o644", "0o644"]
        for path in FILES:
            stream = tar.extractfile(path)
            assert stream
            assert stream.read() == path.encode()
