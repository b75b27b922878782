"""Trees copied whole: owners, modes, times, hard links, sparse files, attributes; then compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.copy.tree_copy import compare_trees, copy_tree

__all__ = ["compare_trees", "copy_tree"]

__getattr__ = lazy_face(
    __name__,
    {
        "tree_copy": "compare_trees copy_tree",
    },
)
