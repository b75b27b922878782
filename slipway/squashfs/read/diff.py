"""What differs between two squashfs images: paths, with sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.squashfs.format import DIR, NO_FRAGMENT, REG
from slipway.squashfs.read.image_reader import SquashfsImage, open_image
from slipway.squashfs.read.inode_reader import Inode


@dataclass(frozen=True)
class FileChange:
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
    image: SquashfsImage
    entries: dict[bytes, Inode]

    def names(self) -> dict[int, list[bytes]]:
        paths: dict[int, list[bytes]] = {}
        for path, inode in self.entries.items():
            paths.setdefault(inode.number, []).append(path)
        return paths


def diff_images(before: Path, after: Path, *, times: bool = False) -> list[FileChange]:
    """All differences, in the order of paths; modification times count only with `times`.

    Raises SquashfsError for a damaged image.
    """
    with open_image(before) as first, open_image(after) as second:
        left, right = _side(first), _side(second)
        contents = _Contents(first, second)
        left_names, right_names = left.names(), right.names()
        changes = []
        for path in sorted({*left.entries, *right.entries}):
            old, new = left.entries.get(path), right.entries.get(path)
            if old is None or new is None:
                kind: Literal["added", "removed"] = "added" if old is None else "removed"
                changes.append(FileChange(kind, path, _size(old), _size(new)))
                continue
            what = list(_compare(left, right, old, new, times))
            if old.kind == new.kind == REG and not contents.same(old, new):
                what.append("content")
            if sorted(left_names[old.number]) != sorted(right_names[new.number]):
                what.append("links")
            if what:
                changes.append(FileChange("changed", path, _size(old), _size(new), tuple(what)))
        return changes


def _side(image: SquashfsImage) -> _Side:
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


def _digest(image: SquashfsImage, inode: Inode) -> bytes:
    hasher = hashlib.sha256()
    for piece in image.content(inode):
        hasher.update(piece)
    return hasher.digest()


class _Contents:
    """Compares contents, where it can without decompressing them: images that were linked from the
    same layers have the same stored blocks."""

    def __init__(self, left: SquashfsImage, right: SquashfsImage) -> None:
        self._left, self._right = left, right
        blocks = left.superblock, right.superblock
        self._alike = len({(block.compressor, block.block_size) for block in blocks}) == 1
        self._fragments: dict[tuple[int, int], bool] = {}

    def same(self, old: Inode, new: Inode) -> bool:
        """Whether two regular files have the same bytes."""
        if old.size != new.size:
            return False
        if self._alike and self._stored_alike(old, new):
            return True
        return _digest(self._left, old) == _digest(self._right, new)

    def _stored_alike(self, old: Inode, new: Inode) -> bool:
        if old.words != new.words or old.offset != new.offset:
            return False
        if not self._fragments_alike(old.fragment, new.fragment):
            return False
        left, right = self._left.stored_blocks(old), self._right.stored_blocks(new)
        return all(mine == other for mine, other in zip(left, right, strict=True))

    def _fragments_alike(self, old: int, new: int) -> bool:
        if NO_FRAGMENT in (old, new):
            return old == new
        known = self._fragments.get((old, new))
        if known is None:
            known = self._left.stored_fragment(old) == self._right.stored_fragment(new)
            self._fragments[old, new] = known
        return known
