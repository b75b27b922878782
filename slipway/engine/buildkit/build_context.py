"""A build context as a tar stream that is the same for the same files, whoever sends it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slipway.engine.errors import EngineError

_HEREDOC = re.compile(r"""(?:^|\s)\d*<<-?["']?[A-Za-z_]\w*["']?(?:\s|$|[;|&>)])""")
_LINK = re.compile(r"^(?:ONBUILD\s+)?(?:COPY|ADD)\s+(?:--\S+\s+)*--link(?:[=\s]|$)", re.IGNORECASE)
_TAKES_HEREDOC = re.compile(r"^(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)
_SYNTAX = re.compile(r"^#\s*syntax\s*=", re.IGNORECASE)

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ContextFile:
    """One file of a build context: its path there, its content, its mode in the image."""

    path: str
    source: Path | bytes
    mode: int = 0o644


def context_tar(files: Iterable[ContextFile]) -> Iterator[bytes]:
    """The tar, piece by piece: sorted, owned by root, dated 1970, never whole in memory.

    Folders come before what is in them, mode 0755. Raises EngineError where a path leaves the
    context, comes twice, or where a file changes its size while it is read.
    """
    listed = {_checked(file.path): file for file in files}
    folders = {str(parent) for path in listed for parent in PurePosixPath(path).parents} - {"."}
    for path in sorted([*listed, *folders]):
        if path in listed:
            yield from _file(path, listed[path])
        else:
            yield _header(path, 0o755, kind=tarfile.DIRTYPE)
    yield bytes(2 * _BLOCK)


def check_context_paths(files: Iterable[ContextFile]) -> None:
    """Raise EngineError where a path is not usable in a context, before anything is sent."""
    seen: set[str] = set()
    for file in files:
        path = _checked(file.path)
        if path in seen:
            raise EngineError(f"{path} is twice in the build context")
        seen.add(path)
    for path in seen:
        above = {str(parent) for parent in PurePosixPath(path).parents} & seen
        if above:
            raise EngineError(f"{above.pop()} is a file and a folder in the build context")


def _checked(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) in (".", ""):
        raise EngineError(f"{path!r} is not a path inside the build context")
    return str(pure)


def _file(path: str, file: ContextFile) -> Iterator[bytes]:
    if isinstance(file.source, bytes):
        yield _header(path, file.mode, size=len(file.source))
        yield file.source
        yield _padding(len(file.source))
        return
    try:
        yield from _copy(path, file.source, file.mode)
    except OSError as error:
        raise EngineError(
            f"cannot read this file of the build context: {error.strerror}", where=str(file.source)
        ) from error


def _copy(path: str, source: Path, mode: int) -> Iterator[bytes]:
    with source.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        yield _header(path, mode, size=size)
        left = size
        while left:
            data = stream.read(min(_CHUNK, left))
            if not data:
                raise EngineError("the file shrank while it was sent", where=str(source))
            left -= len(data)
            yield data
        if stream.read(1):
            raise EngineError("the file grew while it was sent", where=str(source))
    yield _padding(size)


def _header(path: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(path)
    info.mode, info.size, info.type = mode, size, kind
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def check_dockerfile(dockerfile: str) -> None:
    """Raise EngineError, naming the line, for what engines build differently or not at all.

    - Heredocs: 20.10 refuses them, and an engine without BuildKit builds `RUN <<EOF`
      "successfully" without running its body.
    - `COPY --link`: 20.10 refuses it, newer ones change what the layer is made of.
    - `# syntax=`: fetches a frontend image from a public registry at build time.
    """
    for number, line in _instructions(dockerfile):
        if _SYNTAX.match(line):
            _refuse(number, "`# syntax=` makes every build fetch a frontend image")
        if _LINK.match(line):
            _refuse(number, "`--link` does not exist before Docker 23 and is built differently")
        if _TAKES_HEREDOC.match(line) and _HEREDOC.search(line):
            _refuse(number, "heredocs do not exist before Docker 23")


def _refuse(number: int, why: str) -> None:
    raise EngineError(
        f"{why}; nothing was sent",
        where=f"Dockerfile:{number}",
        cure="Use RUN with `&&`, or COPY of a file from the context.",
    )


def _instructions(dockerfile: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of each instruction, continued lines joined; parser directives too."""
    joined, start, header = "", 0, True
    for number, raw in enumerate(dockerfile.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#"):
            if header:
                yield number, line
            continue
        if line:
            header = False
        start = start if joined else number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        if joined or line:
            yield start, joined + line
        joined = ""
    if joined:
        yield start, joined
