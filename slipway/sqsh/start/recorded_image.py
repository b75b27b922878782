"""A .sqsh as files to be served, which remembers what was read of it, and in which order."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator

from slipway.sqsh.start.fuse_connection import ROOT_NODE, NodeAttributes
from slipway.squashfs import DIR, KIND_MODE, REG, SYMLINK, Inode, SquashfsImage

_BLOCKS = 64
"""Decompressed blocks that are kept: the kernel asks for a part of one at a time."""


class RecordedImage:
    """The files of an image, by the inodes' references.

    One thread at a time. `reads` has, for each path in the order of its first read, the (start,
    end) of each read of it, and `sizes` the bytes of these files.
    """

    def __init__(self, image: SquashfsImage) -> None:
        self._image = image
        self._root = image.superblock.root
        self._paths: dict[int, bytes] = {ROOT_NODE: b""}
        self._listings: dict[int, dict[bytes, int]] = {}
        self.reads: dict[bytes, list[tuple[int, int]]] = {}
        self.sizes: dict[bytes, int] = {}
        self._inode = functools.cache(self._read_inode)
        self._block = functools.lru_cache(_BLOCKS)(self._read_block)

    def _reference(self, node: int) -> int:
        return self._root if node == ROOT_NODE else node - ROOT_NODE - 1

    def _node(self, reference: int) -> int:
        return ROOT_NODE if reference == self._root else reference + ROOT_NODE + 1

    def _read_inode(self, node: int) -> Inode:
        return self._image.inode(self._reference(node))

    def _read_block(self, node: int, number: int) -> bytes:
        return self._image.content_block(self._inode(node), number)

    def _listing(self, folder: int) -> dict[bytes, int]:
        listing = self._listings.get(folder)
        if listing is None:
            inode = self._inode(folder)
            if inode.kind != DIR:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            listing = {name: self._node(ref) for name, ref, _, _ in self._image.listing(inode)}
            self._listings[folder] = listing
        return listing

    def attributes(self, node: int) -> NodeAttributes:
        """Of a node."""
        inode = self._inode(node)
        return NodeAttributes(
            node,
            KIND_MODE[inode.kind] | inode.mode,
            inode.size,
            inode.mtime,
            inode.nlink,
            inode.uid,
            inode.gid,
            inode.device,
        )

    def find(self, folder: int, name: bytes) -> NodeAttributes:
        """What a folder has under a name."""
        node = self._listing(folder).get(name)
        if node is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        above = self._paths[folder]
        self._paths.setdefault(node, above + b"/" + name if above else name)
        return self.attributes(node)

    def names(self, folder: int) -> Iterator[tuple[bytes, NodeAttributes]]:
        """All that a folder has."""
        return ((name, self.attributes(node)) for name, node in self._listing(folder).items())

    def target(self, node: int) -> bytes:
        """Of a symbolic link."""
        inode = self._inode(node)
        if inode.kind != SYMLINK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return inode.target

    def read(self, node: int, start: int, size: int) -> bytes:
        """A part of a file, and a note of it."""
        inode = self._inode(node)
        if inode.kind != REG:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        end = min(start + size, inode.size)
        if start >= end:
            return b""
        path = self._paths[node]
        self.reads.setdefault(path, []).append((start, end))
        self.sizes[path] = inode.size
        length = self._image.superblock.block_size
        first, last = start // length, (end - 1) // length
        data = b"".join(self._block(node, number) for number in range(first, last + 1))
        return data[start - first * length : end - first * length]
