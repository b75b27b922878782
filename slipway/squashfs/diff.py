"""What differs between two squashfs images: paths, with sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.squashfs.format import DIR, REG
from slipway.squashfs.inoderead import Inode
from slipway.squashfs.reader import Image, opened


@dataclass(frozen=True)
class Change:
    """One path that differs. Sizes are bytes of content, None where the path is not there.

    `what` names what changed: "content", "type", "mode", "owner", "time", "target", "device",
    "attributes", "links".
    """

    kind: Literal["added", "removed", "changed"]
    path: bytes
    before: int | None
    after: int | None
    what: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Side:
    image: Image
    entries: dict[bytes, Inode]

    def names(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for path, inode in self.entries.items():
            found.setdefault(inode.number, []).append(path)
        return found


def diff(before: Path, after: Path, *, times: bool = False) -> list[Change]:
    """All differences, in the order of paths; modification times count only with `times`.

    Raises SquashfsError for a damaged image.
    """
    with opened(before) as first, opened(after) as second:
        left, right = _side(first), _side(second)
        left_names, right_names = left.names(), right.names()
        changes = []
        for path in sorted({*left.entries, *right.entries}):
            old, new = left.entries.get(path), right.entries.get(path)
            if old is None or new is None:
                kind: Literal["added", "removed"] = "added" if old is None else "removed"
                changes.append(Change(kind, path, _size(old), _size(new)))
                continue
            what = list(_compare(left, right, old, new, times))
            if sorted(left_names[old.number]) != sorted(right_names[new.number]):
                what.append("links")
            if what:
                changes.append(Change("changed", path, _size(old), _size(new), tuple(what)))
        return changes


def _side(image: Image) -> _Side:
    return _Side(image, {entry.path: entry.inode for entry in image.walk()})


def _size(inode: Inode | None) -> int | None:
    if inode is None:
        return None
    return inode.size if inode.kind == REG else 0


def _compare(left: _Side, right: _Side, old: Inode, new: Inode, times: bool) -> Iterator[str]:
    if old.kind != new.kind:
        yield "type"
        return
    if old.mode != new.mode:
        yield "mode"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield "owner"
    if times and old.mtime != new.mtime and old.kind != DIR:
        yield "time"
    if old.target != new.target:
        yield "target"
    if old.device != new.device:
        yield "device"
    if left.image.xattrs(old) != right.image.xattrs(new):
        yield "attributes"
    if old.kind == REG and not _same_content(left.image, right.image, old, new):
        yield "content"


def _same_content(left: Image, right: Image, old: Inode, new: Inode) -> bool:
    return old.size == new.size and _digest(left, old) == _digest(right, new)


def _digest(image: Image, inode: Inode) -> bytes:
    hasher = hashlib.sha256()
    for piece in image.content(inode):
        hasher.update(piece)
    return hasher.digest()
