"""Files that become visible only when they are whole, hashes of trees, and the project's lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import SlipwayError


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Write beside, flush, rename: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    payload = data.encode() if isinstance(data, str) else data
    try:
        with partial.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SlipwayError(
            f"cannot write {path}: {error.strerror}",
            cure="Check free space (df), permissions and whether the file system is read-only.",
        ) from error


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_files(root: Path) -> list[Path]:
    """Regular files below `root`, sorted by path, without caches and hidden files."""
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            found.append(path)
    return found


def is_executable(path: Path) -> bool:
    """Whether the owner may execute the file."""
    return bool(path.stat().st_mode & stat.S_IXUSR)


def tree_sha256(root: Path) -> str:
    """Hex digest over path, executable bit and content of every file of a tree.

    Only the executable bit counts, as in git: other mode bits depend on the umask of the checkout.
    """
    digest = hashlib.sha256()
    for path in tree_files(root):
        line = f"{path.relative_to(root).as_posix()} {int(is_executable(path))} {sha256_file(path)}"
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at `path`, or raise SlipwayError naming the process that holds it.

    The kernel drops the lock with the process, so a killed run leaves nothing to clean.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise SlipwayError(
                f"{owner} is at work in this project already",
                where=str(path),
                cure="Wait for it to end, or end it, and run this again.",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"inv {doing} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(handle)
