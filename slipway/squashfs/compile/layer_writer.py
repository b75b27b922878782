"""A small layer that is made here, not read: files, links and directories with given contents."""

from __future__ import annotations

import io

from slipway.squashfs.compile.block_writer import BlockWriter
from slipway.squashfs.compile.compiled_layer import CompiledLayer, DataPart, freeze_tree
from slipway.squashfs.compile.layer_tree import WHITEOUT, TreeNode, new_root, put_node
from slipway.squashfs.format import DIR, REG, SYMLINK, SqshOptions


class LayerWriter:
    """Collects what the layer says; everything belongs to root. Paths are below the root.

    Parents that are not named are taken from the layers below. Raises ValueError for bad paths.
    """

    def __init__(self, options: SqshOptions, mtime: int) -> None:
        self._root = new_root()
        self._mtime = mtime
        self._sink = io.BytesIO()
        self._packer = BlockWriter(self._sink, options.codec(), options.block_size)

    def file(self, path: bytes, content: bytes, mode: int = 0o644) -> None:
        """A file, in the place of whatever is there."""
        node = TreeNode(REG, mode, mtime=self._mtime, size=len(content))
        node.data = self._packer.add(len(content), io.BytesIO(content).read)
        put_node(self._root, path, node)

    def symlink(self, path: bytes, target: bytes) -> None:
        """A symbolic link, in the place of whatever is there."""
        put_node(self._root, path, TreeNode(SYMLINK, 0o777, mtime=self._mtime, target=target))

    def directory(self, path: bytes) -> None:
        """A directory of mode 0755, merged with one that is there."""
        put_node(self._root, path, TreeNode(DIR, 0o755, mtime=self._mtime))

    def empty(self, path: bytes) -> None:
        """Remove everything in a directory; it keeps its mode, or is made with 0755."""
        put_node(
            self._root, path, TreeNode(DIR, 0o755, mtime=self._mtime, implied=True, opaque=True)
        )

    def remove(self, path: bytes) -> None:
        """Remove a name."""
        put_node(self._root, path, TreeNode(WHITEOUT))

    def finish(self) -> CompiledLayer:
        """The layer, its data in memory."""
        pieces = self._packer.finish()
        parts = [DataPart(self._sink.getvalue(), pieces)]
        return freeze_tree(self._root, parts, self._packer.fragments, [0])
