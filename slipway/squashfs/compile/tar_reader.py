"""A tar stream as members, fast enough for hundreds of thousands of them.

Format: POSIX.1-2017 pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format"; extended
attributes are `SCHILY.xattr.` pax records (opencontainers/image-spec:layer.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from slipway.squashfs.format import LayerError

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0123456"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"xgLK"
_REGULAR_TOO = (0, ord("7"))
_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
_HEADER_MAX = 16 << 20  # bytes of one pax header; xattrs are far smaller
_SIZE_MAX = 1 << 60

Read = Callable[[int], bytes]


@dataclass
class TarMember:
    """One member. `name` is as written; `mtime` whole seconds, possibly negative."""

    kind: int
    name: bytes
    link: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:  # GNU's base 256
        value = int.from_bytes(raw, "big", signed=raw[0] == 0xFF)
        return value if raw[0] == 0xFF else value & ((1 << (8 * len(raw) - 1)) - 1)
    text = raw.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`LENGTH KEY=VALUE\\n` records; values may hold any byte, newlines included."""
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        length = int(data[at:blank]) if blank > 0 else 0
        key, equals, value = data[blank + 1 : at + length - 1].partition(b"=")
        if length <= 0 or at + length > len(data) or not equals:
            raise ValueError("a bad pax record")
        yield key, value
        at += length


def _member(block: bytes, pax: dict[bytes, bytes]) -> TarMember:
    raw = _LAYOUT.unpack(block)
    if sum(block) - sum(raw[6]) + 8 * 0x20 != _number(raw[6]):
        raise ValueError("a header with a bad checksum")
    name, kind = raw[0].split(b"\0", 1)[0], raw[7][0]
    if raw[9] == b"ustar\0" and raw[15][0]:
        name = raw[15].split(b"\0", 1)[0] + b"/" + name
    if kind in _REGULAR_TOO:
        # The old way to write a directory (GNU tar manual, "Basic Tar Format").
        kind = DIRECTORY if kind == 0 and name.endswith(b"/") else REGULAR
    if not pax:
        return TarMember(
            kind,
            name,
            raw[8].split(b"\0", 1)[0],
            _number(raw[1]) & 0o7777,
            _number(raw[2]),
            _number(raw[3]),
            _number(raw[4]),
            _number(raw[5]),
            _number(raw[13]),
            _number(raw[14]),
        )
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        raise ValueError("a sparse member, which no image builder writes")
    return TarMember(
        kind,
        pax.get(b"path", name),
        pax.get(b"linkpath", raw[8].split(b"\0", 1)[0]),
        _number(raw[1]) & 0o7777,
        int(pax.get(b"uid") or _number(raw[2])),
        int(pax.get(b"gid") or _number(raw[3])),
        int(pax.get(b"size") or _number(raw[4])),
        _seconds(pax[b"mtime"]) if pax.get(b"mtime") else _number(raw[5]),
        _number(raw[13]),
        _number(raw[14]),
        {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)},
    )


def _seconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    seconds = int(whole)
    # -0.5 lies in the second before 0.
    return seconds - 1 if text.startswith(b"-") and fraction.strip(b"0") else seconds


def tar_members(read: Read, skip: Callable[[int], None]) -> Iterator[TarMember]:
    """The members of a stream; the caller reads or skips each one's content and padding.

    `read` gives exactly as much as asked for. Raises LayerError where it is no archive.
    """
    pax: dict[bytes, bytes] = {}
    defaults: dict[bytes, bytes] = {}
    while True:
        block = read(BLOCK)
        if block.count(0) == BLOCK:
            return
        try:
            member = _member(block, {**defaults, **pax} if defaults else pax)
            if not 0 <= member.size < _SIZE_MAX:
                raise ValueError(f"a member of {member.size} bytes")
            if member.kind not in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
                pax = {}
                yield member
                continue
            if member.size > _HEADER_MAX:
                raise ValueError("an oversized header")
            data = read(member.size)
            skip(-member.size % BLOCK)
            if member.kind == _PAX:
                pax.update(_pax(data))
            elif member.kind == _PAX_GLOBAL:
                defaults.update(_pax(data))
            else:
                pax[b"path" if member.kind == _GNU_NAME else b"linkpath"] = data.split(b"\0", 1)[0]
        except ValueError as error:
            raise LayerError(f"the layer's archive is damaged: {error}") from error
