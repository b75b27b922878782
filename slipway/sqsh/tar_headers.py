"""Tar headers as bytes: parsed from and written to 512-byte blocks.

Python's tarfile spends 100 us and more an entry and decodes names; an image has hundreds of
thousands of entries, and names that are not UTF-8. Format: POSIX.1-2017 pax, "pax Interchange
Format", and the GNU tar manual, "Basic Tar Format"; extended attributes are `SCHILY.xattr.` pax
records, as docker export writes them (moby/moby:pkg/archive/archive.go).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0123456"
KINDS = frozenset((REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO))
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK = b"xgLK"
_OLD_REGULAR, _CONTIGUOUS = 0, ord("7")

_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")  # overlayfs's own bookkeeping, not content
_MAX_MTIME = (1 << 32) - 1  # squashfs stores unsigned 32-bit seconds


class TarError(ValueError):
    """The stream is not a tar archive, or one of a kind that an image export never is."""


@dataclass
class TarEntry:
    """One entry. Names are relative to the root, without `./` and a trailing slash."""

    kind: int
    name: bytes
    link: bytes = b""
    mode: int = 0o644
    size: int = 0
    mtime: int = 0
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def tar_number(raw: bytes) -> int:
    """A numeric field: octal text, or GNU's base 256 where the top bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=raw[0] == 0xFF)
        return value if raw[0] == 0xFF else value & ((1 << (8 * len(raw) - 1)) - 1)
    text = raw.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise TarError(f"bad number {raw!r} in a tar header") from None


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`LENGTH KEY=VALUE\\n` records; values may hold any byte, newlines included."""
    while data:
        length, _, _ = data.partition(b" ")
        record = data[: int(length)] if length.isdigit() else b""
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != int(length):
            raise TarError("bad pax record in a tar header")
        yield key, value
        data = data[int(length) :]


def clean_path(name: bytes) -> bytes:
    """A path relative to the root; the root itself is empty."""
    while name.startswith((b"/", b"./")):
        name = name.lstrip(b"/") if name.startswith(b"/") else name[2:]
    name = name.rstrip(b"/")
    return b"" if name == b"." else name


def parse_header(block: bytes, pax: dict[bytes, bytes]) -> TarEntry:
    """One header block and the pax or GNU records before it -> an entry. Raises TarError."""
    raw = _LAYOUT.unpack(block)
    if sum(block) - sum(raw[6]) + 8 * 0x20 != tar_number(raw[6]):
        raise TarError("bad checksum in a tar header")
    name, kind = raw[0].rstrip(b"\0"), raw[7][0]
    if raw[9] == b"ustar\0" and raw[15][0]:
        name = raw[15].split(b"\0", 1)[0] + b"/" + name
    if kind in (_OLD_REGULAR, _CONTIGUOUS):
        kind = REGULAR
    link = pax.get(b"linkpath", raw[8].rstrip(b"\0"))
    return TarEntry(
        kind=kind,
        name=clean_path(pax.get(b"path", name)),
        link=clean_path(link) if kind == HARDLINK else link,
        mode=tar_number(raw[1]) & 0o7777,
        size=int(pax.get(b"size", b"")) if b"size" in pax else tar_number(raw[4]),
        mtime=int(pax[b"mtime"].split(b".")[0]) if b"mtime" in pax else tar_number(raw[5]),
        major=tar_number(raw[13]),
        minor=tar_number(raw[14]),
        xattrs={
            key[len(_XATTR) :]: value
            for key, value in pax.items()
            if key.startswith(_XATTR) and not key.startswith(_OVERLAY, len(_XATTR))
        },
    )


def _field(value: int, width: int) -> bytes:
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _block(entry: TarEntry, kind: int, size: int) -> bytes:
    fields = (
        entry.name[:100],
        _field(entry.mode, 8),
        b"0000000\0",  # every file belongs to root, as mksquashfs -all-root makes it
        b"0000000\0",
        _field(size, 12),
        _field(min(max(entry.mtime, 0), _MAX_MTIME), 12),
    )
    rest = (
        bytes((kind,)),
        entry.link[:100],
        b"ustar\0",
        b"00",
        b"",
        b"",
        _field(entry.major, 8),
        _field(entry.minor, 8),
        b"",
    )
    checksum = sum(_LAYOUT.pack(*fields, b" " * 8, *rest))
    return _LAYOUT.pack(*fields, b"%06o\0 " % checksum, *rest)


def _record(key: bytes, value: bytes) -> bytes:
    payload = len(key) + len(value) + 3
    length = payload + len(str(payload))
    length = payload + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def build_header(entry: TarEntry) -> bytes:
    """The header block of an entry, after a pax header where a plain one cannot hold it."""
    records = [_record(_XATTR + key, value) for key, value in sorted(entry.xattrs.items())]
    if len(entry.name) > 100:
        records.append(_record(b"path", entry.name))
    if len(entry.link) > 100:
        records.append(_record(b"linkpath", entry.link))
    head = _block(entry, entry.kind, entry.size)
    if not records:
        return head
    data = b"".join(records)
    return _block(TarEntry(PAX, b"pax"), PAX, len(data)) + data + block_padding(len(data)) + head


def block_padding(size: int) -> bytes:
    """The zeros that fill the last block of `size` bytes."""
    return bytes(-size % BLOCK)
