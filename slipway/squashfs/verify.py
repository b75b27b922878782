"""Is a squashfs image whole? Its structure, or every byte of its contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slipway.squashfs.format import DIR, REG
from slipway.squashfs.reader import Image, opened


@dataclass(frozen=True)
class Found:
    """What an image holds: paths below the root, inodes, bytes of file content."""

    entries: int
    inodes: int
    content: int


def check(
    path: Path, *, contents: bool = True, on_bytes: Callable[[int], None] | None = None
) -> Found:
    """Read a whole image: tables, names, link counts, attributes and, if wanted, all contents.

    Raises SquashfsError for the first thing that is not as it must be.
    """
    with opened(path) as image:
        return _check(image, contents, on_bytes)


def _check(image: Image, contents: bool, on_bytes: Callable[[int], None] | None) -> Found:
    names: dict[int, int] = {}
    links: dict[int, int] = {}
    entries = content = 0
    references = image.references()
    for entry in image.walk():
        inode = entry.inode
        entries += 1
        first = inode.number not in names
        names[inode.number] = names.get(inode.number, 0) + 1
        links[inode.number] = 0 if inode.kind == DIR else inode.nlink
        if not first:
            continue
        image.xattrs(inode)
        if references and image.inode(references[inode.number - 1]) != inode:
            raise ValueError(f"the export table leads elsewhere for {entry.path!r}")
        if inode.kind == REG:
            content += inode.size
            if contents:
                for piece in image.content(inode):
                    if on_bytes is not None:
                        on_bytes(len(piece))
    for number, count in names.items():
        if links[number] and links[number] != count:
            raise ValueError(f"inode {number} has {count} names and says {links[number]}")
    if len(names) != image.superblock.inodes:
        raise ValueError(f"{image.superblock.inodes} inodes, of which {len(names)} have names")
    return Found(entries - 1, len(names), content)
