"""A layer -> its compiled form in the cache: packed data blocks and a tree without positions.

Each layer is compiled once by its digest; what is linked of it later is decided by the linker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.squashfs.compile.compiled_layer import IMPLIED, OPAQUE, CompiledLayer, DataPart
    from slipway.squashfs.compile.layer_tree import LOWER_LINK, WHITEOUT

__all__ = ["IMPLIED", "LOWER_LINK", "OPAQUE", "WHITEOUT", "CompiledLayer", "DataPart"]

__getattr__ = lazy_face(
    __name__,
    {
        "compiled_layer": "CompiledLayer DataPart IMPLIED OPAQUE",
        "layer_tree": "LOWER_LINK WHITEOUT",
    },
)
