"""Where an image's layers come from: an engine, a registry, an OCI layout.

All give one SourceImage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.sqsh.sources.blobs import StoredImage
    from slipway.sqsh.sources.engine_source import (
        container_export,
        find_engine_image,
        find_overlay_layers,
    )
    from slipway.sqsh.sources.oci_layout import layout_image
    from slipway.sqsh.sources.registry_source import registry_image

__all__ = [
    "StoredImage",
    "container_export",
    "find_engine_image",
    "find_overlay_layers",
    "layout_image",
    "registry_image",
]

__getattr__ = lazy_face(
    __name__,
    {
        "blobs": "StoredImage",
        "engine_source": "container_export find_engine_image find_overlay_layers",
        "oci_layout": "layout_image",
        "registry_source": "registry_image",
    },
)
