"""What a .sqsh must be, piece by piece: the `.json` beside it, read as a stranger's word.

The format is Slipway's (docs/sqsh.md, "The sidecar"); a test holds this reader and Slipway's own
to the same files.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.causes import FETCH_SHORT, LaunchError

FORMATS = ("slipway-sqsh/4", "slipway-sqsh/3")
LARGEST_SIDECAR = 32 << 20
#: Pieces are cut at a few MiB; what claims more is no piece of ours.
LARGEST_PIECE = 64 << 20
#: Pieces of a file of several hundred GB.
MOST_PIECES = 100_000
LARGEST_FILE = 1 << 42

_LINE = re.compile(r"([1-9][0-9]{0,11}) ([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\.sqsh")


class FetchError(LaunchError):
    """A .sqsh could not be fetched; nothing is under its name that is not whole."""

    def __init__(self, message: str, code: int = FETCH_SHORT) -> None:
        super().__init__(message, code=code, kind="FetchError")


@dataclass(frozen=True)
class FilePiece:
    """Content by its digest, and where in the file it stands, perhaps several times."""

    size: int
    sha256: str
    starts: tuple[int, ...]


@dataclass(frozen=True)
class SqshSidecar:
    """A checked sidecar. `raw` are its bytes; `pieces` has each content once."""

    raw: bytes
    size: int
    digest: str
    pieces: tuple[FilePiece, ...]


def parse_sidecar(raw: bytes, where: str) -> SqshSidecar:
    """A sidecar that came from `where`. Raises FetchError that names what is wrong in it."""
    if len(raw) > LARGEST_SIDECAR:
        raise _damaged(where, f"it has more than {LARGEST_SIDECAR} bytes")
    try:
        data: Any = json.loads(raw.decode("utf-8"))
        if data["format"] not in FORMATS:
            raise _damaged(where, f"its format is {str(data['format'])[:40]!r}")
        lines, size, digest = data["pieces"], data["size"], data["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(where, f"{type(error).__name__}: {str(error)[:80]}") from error
    if not isinstance(lines, list) or not 0 < len(lines) <= MOST_PIECES:
        raise _damaged(where, "it has no usable list of pieces")
    rows = []
    for line in lines:
        match = _LINE.fullmatch(line) if isinstance(line, str) else None
        if match is None or int(match[1]) > LARGEST_PIECE:
            raise _damaged(where, f"{str(line)[:100]!r} is no piece")
        rows.append((int(match[1]), match[2]))
    total = sum(count for count, _ in rows)
    text = "".join(f"{count} {sha256}\n" for count, sha256 in rows)
    if type(size) is not int or size != total or total > LARGEST_FILE:
        raise _damaged(where, "its pieces do not have its size")
    if digest != hashlib.sha256(text.encode()).hexdigest():
        raise _damaged(where, "its pieces do not have its digest")
    starts: dict[tuple[int, str], list[int]] = {}
    position = 0
    for row in rows:
        starts.setdefault(row, []).append(position)
        position += row[0]
    pieces = tuple(FilePiece(*row, tuple(at)) for row, at in starts.items())
    return SqshSidecar(raw, total, digest, pieces)


def read_sidecar_file(sqsh: Path) -> SqshSidecar | None:
    """The sidecar beside a file; None where there is none that can be used."""
    path = sidecar_of(sqsh)
    try:
        with path.open("rb") as stream:
            return parse_sidecar(stream.read(LARGEST_SIDECAR + 1), str(path))
    except (OSError, FetchError):
        return None


def sidecar_of(sqsh: Path) -> Path:
    """Where the sidecar of a .sqsh lies."""
    return sqsh.with_name(sqsh.name + ".json")


def check_name(name: str, where: str) -> str:
    """A file's name that came from `where`, as one that stays in its folder; FetchError else."""
    if not _NAME.fullmatch(name):
        raise FetchError(f"{where}: {name[:100]!r} is no name of a .sqsh file")
    return name


def _damaged(where: str, why: str) -> FetchError:
    return FetchError(f"{where} is no sidecar of a .sqsh that can be used: {why}")
