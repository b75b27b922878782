"""A small layer that is made here, not read: files, links and directories with given contents."""

from __future__ import annotations

import io

from slipway.squashfs.compile.block_writer import Packer
from slipway.squashfs.compile.compiled_layer import Layer, Part, freeze
from slipway.squashfs.compile.layer_tree import WHITEOUT, Node, new_root, put
from slipway.squashfs.format.options import Options
from slipway.squashfs.format.structures import DIR, REG, SYMLINK


class LayerWriter:
    """Collects what the layer says; everything belongs to root. Paths are below the root.

    Parents that are not named are taken from the layers below. Raises ValueError for bad paths.
    """

    def __init__(self, options: Options, mtime: int) -> None:
        self._root = new_root()
        self._mtime = mtime
        self._sink = io.BytesIO()
        self._packer = Packer(self._sink, options.codec(), options.block_size)

    def file(self, path: bytes, content: bytes, mode: int = 0o644) -> None:
        """A file, in the place of whatever is there."""
        node = Node(REG, mode, mtime=self._mtime, size=len(content))
        node.data = self._packer.add(len(content), io.BytesIO(content).read)
        put(self._root, path, node)

    def symlink(self, path: bytes, target: bytes) -> None:
        """A symbolic link, in the place of whatever is there."""
        put(self._root, path, Node(SYMLINK, 0o777, mtime=self._mtime, target=target))

    def directory(self, path: bytes, mode: int = 0o755) -> None:
        """A directory, merged with one that is there."""
        put(self._root, path, Node(DIR, mode, mtime=self._mtime))

    def empty(self, path: bytes) -> None:
        """Remove everything in a directory; it keeps its mode, or is made with 0755."""
        put(self._root, path, Node(DIR, 0o755, mtime=self._mtime, implied=True, opaque=True))

    def remove(self, path: bytes) -> None:
        """Remove a name."""
        put(self._root, path, Node(WHITEOUT))

    def finish(self) -> Layer:
        """The layer, its data in memory."""
        pieces = self._packer.finish()
        parts = [Part(self._sink.getvalue(), pieces)]
        return freeze(self._root, parts, self._packer.fragments, [0])
