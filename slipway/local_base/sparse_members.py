"""Sparse members of a tar written out, as GNU tar has them without `--sparse`.

mmdebstrap uses `--sparse` since 1.6.0, and a program's pages of zeros are holes on many disks. An
engine keeps a layer as files and as what stood between them in its tar, which knows no holes: an
image that was imported from such a tar can neither be pushed nor saved (moby/moby#37680,
podman-container-tools/podman#25270). And the same files would give another digest there.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from slipway.core import SlipwayError

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_SPARSE = "GNU.sparse."
_MOST = 8**11  # a size in octal


def write_out_sparse_members(tar: Path) -> None:
    """Have a tar of pax's format hold no sparse member: to the byte what `tar` without `--sparse`
    would have made. One that has none is left as it is.

    Raises SlipwayError where the tar is damaged, or a member is sparse in another form than GNU
    tar's 1.0.
    """
    plain = tar.with_name(f"{tar.name}.plain")
    try:
        with tarfile.open(tar, "r:") as archive, tar.open("rb") as raw, plain.open("wb") as target:
            if not any(member.sparse is not None for member in archive):
                return
            _write(archive, raw, target)
        plain.replace(tar)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SlipwayError(f"the root file system's tar is damaged: {error}") from error
    finally:
        plain.unlink(missing_ok=True)


def _write(archive: tarfile.TarFile, raw: IO[bytes], target: IO[bytes]) -> None:
    at = 0
    for member in archive:
        parts: Sequence[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]
        if parts is None:
            continue
        _copy(raw, target, at, member.offset)
        raw.seek(member.offset)
        target.write(_headers(member, raw))
        content = archive.extractfile(member)
        assert content is not None, "a sparse member is a file"
        shutil.copyfileobj(content, target, 1 << 20)
        target.write(bytes(-member.size % _BLOCK))
        stored = sum(size for _, size in parts)
        at = member.offset_data + stored + -stored % _BLOCK
    _copy(raw, target, at, archive.offset)
    # The end: two blocks of zeros at least, and whole records of what `tar` itself has written.
    whole, end = raw.seek(0, 2), target.tell() + 2 * _BLOCK
    target.write(bytes(2 * _BLOCK + (whole - end) % _RECORD))


def _copy(raw: IO[bytes], target: IO[bytes], start: int, end: int) -> None:
    raw.seek(start)
    while start < end:
        piece = raw.read(min(1 << 20, end - start))
        if not piece:
            raise EOFError("it ends in the middle of a member")
        start += len(piece)
        target.write(piece)


def _headers(member: tarfile.TarInfo, raw: IO[bytes]) -> bytes:
    """What stands before the content of a member: its own header, and before it one of pax's
    records where anything else than its being sparse was said there, or its name is too long."""
    said = member.pax_headers
    version = said.get(f"{_SPARSE}major"), said.get(f"{_SPARSE}minor")
    if version != ("1", "0") or member.size >= _MOST:
        raise ValueError(f"{member.name} is sparse in a form that is not known here")
    name = said[f"{_SPARSE}name"]
    records = {k: v for k, v in said.items() if k != "path" and not k.startswith(_SPARSE)}
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > tarfile.LENGTH_NAME or not name.isascii():
        records = {"path": name, **records}
    extended = raw.read(_BLOCK)
    length = tarfile.nti(extended[124:136])  # type: ignore[attr-defined]
    raw.seek(length + -length % _BLOCK, 1)
    header = raw.read(_BLOCK)
    field = encoded[: tarfile.LENGTH_NAME].ljust(tarfile.LENGTH_NAME, b"\0")
    own = _header(field + header[tarfile.LENGTH_NAME :], member.size)
    if not records:
        return own
    body = _records(records)
    return _header(extended, len(body)) + body + bytes(-len(body) % _BLOCK) + own


def _records(records: Mapping[str, str]) -> bytes:
    """POSIX.1-2017, pax, "pax Extended Header": each begins with its own length."""
    lines = []
    for key, value in records.items():
        rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        lines.append(str(length).encode() + rest)
    return b"".join(lines)


def _header(block: bytes, size: int) -> bytes:
    """A header with another size (and so another checksum)."""
    block = block[:124] + b"%011o\0" % size + block[136:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
