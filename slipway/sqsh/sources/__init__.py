"""Where an image's layers come from: an engine, a registry, an OCI layout, an archive.

All give one SourceImage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.sqsh.sources.blob_store import (
        BlobStore,
        ImageFinder,
        StoredManifest,
        stored_image,
    )
    from slipway.sqsh.sources.engine_source import find_overlay_layers, open_engine_image
    from slipway.sqsh.sources.image_archive import archive_image, open_archive
    from slipway.sqsh.sources.oci_layout import flat_image, layout_image, read_file
    from slipway.sqsh.sources.registry_source import registry_image

__all__ = [
    "BlobStore",
    "ImageFinder",
    "StoredManifest",
    "archive_image",
    "find_overlay_layers",
    "flat_image",
    "layout_image",
    "open_archive",
    "open_engine_image",
    "read_file",
    "registry_image",
    "stored_image",
]

__getattr__ = lazy_face(
    __name__,
    {
        "blob_store": "BlobStore ImageFinder StoredManifest stored_image",
        "engine_source": "find_overlay_layers open_engine_image",
        "image_archive": "archive_image open_archive",
        "oci_layout": "flat_image layout_image read_file",
        "registry_source": "registry_image",
    },
)
