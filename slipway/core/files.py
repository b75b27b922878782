"""Files that become visible only when they are whole: written beside, flushed, renamed.

What is being written is called `.NAME.OWNER.partial`, so that what a killed run left is known from
what a living one is still writing.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.core.errors import SlipwayError
from slipway.core.processes import Owner, this_process

_SUFFIX = ".partial"
_PIECE = 1 << 20


def _of(destination: Path, owner: Owner | str) -> str:
    return f".{destination.name}.{owner}{_SUFFIX}"


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644, flush: bool = True) -> None:
    """Write beside, flush, rename: a reader sees the old file or the new one, never half.

    `flush` False, for what is checked when it is read and can be made again: a power failure may
    leave an empty or damaged file.
    """
    partial = path.with_name(_of(path, this_process()))
    payload = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # With its own rights from the start: what only root may read is never open to others.
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fchmod(handle, mode)
            if flush:
                os.fsync(handle)
        partial.replace(path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):  # where a parent is a file, there is nothing to remove
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise SlipwayError(
            f"cannot write {path}: {error.strerror}",
            cure="Check free space (df), permissions and whether the file system is read-only.",
        ) from error


def remove_leftovers(destination: Path) -> list[Path]:
    """Remove half-written files of killed runs for this destination; those of live ones stay."""
    removed = []
    prefix = _of(destination, "").removesuffix(_SUFFIX)
    for path in sorted(destination.parent.iterdir()):
        if path.name.startswith(prefix) and path.name.endswith(_SUFFIX):
            owner = Owner.parse(path.name[len(prefix) : -len(_SUFFIX)])
            if owner is not None and owner.is_gone:
                path.unlink(missing_ok=True)
                removed.append(path)
    return removed


@contextlib.contextmanager
def partial_file(destination: Path) -> Iterator[Path]:
    """A new empty file beside `destination`, removed at the end unless `commit` renamed it.

    Raises SlipwayError where the folder cannot be written.
    """
    path = destination.with_name(_of(destination, this_process()))
    try:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise SlipwayError(
                f"cannot write there: {error.strerror}",
                where=str(destination.parent),
                cure="Choose a folder that exists or can be made, on a file system that is "
                "writable.",
            ) from error
        yield path
    finally:
        with contextlib.suppress(OSError):  # where a parent is a file, there is nothing to remove
            path.unlink(missing_ok=True)


def commit(partial: Path, destination: Path) -> None:
    """Give a whole file its name.

    The file is not flushed, which would cost several times what linking it does (3.2 GB: 8 s
    against 2 s). One that a power failure cuts short has another size than its sidecar says, so
    that the next export makes it again (preflight.already_there).
    """
    partial.replace(destination)


def file_pieces(path: Path, offset: int = 0) -> Iterator[bytes]:
    """What a file holds from an offset on, in pieces of at most 1 MiB. Raises OSError."""
    with path.open("rb") as stream:
        stream.seek(offset)
        while piece := stream.read(_PIECE):
            yield piece


def write_note(path: Path, value: Any) -> None:
    """Keep what JSON can hold, so that damage to it is noticed. Raises OSError."""
    write_atomic(path, gzip.compress(json.dumps(value).encode(), 3, mtime=0), flush=False)


def read_note(path: Path) -> Any:
    """What `write_note` has kept; None where nothing is there, or it is damaged."""
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error):  # CRC-32 and length: RFC 1952, 2.3.1
        return None
