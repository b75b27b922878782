"""An image, of an engine, a registry, an OCI layout or an archive -> an enroot-ready .sqsh.

What enroot adds and changes is decided here; the bytes are written by the squashfs room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.sqsh.comparison import ImageExporter
    from slipway.sqsh.destination import export_disk
    from slipway.sqsh.export import ExportRequest, export_image
    from slipway.sqsh.node_program import fetch_program, run_fetch_program
    from slipway.sqsh.packing import Packing, image_packing, record_start
    from slipway.sqsh.pushed_file import PushedFile, push_sqsh
    from slipway.sqsh.sidecar import read_sidecar, verify_sqsh_file
    from slipway.sqsh.sources.blob_store import PACKED_RATIO, BlobStore
    from slipway.sqsh.sources.engine_source import find_overlay_layers
    from slipway.sqsh.sources.registry_source import RegistryBlobs
    from slipway.sqsh.start import FuseConnection, NodeAttributes
    from slipway.sqsh.stored_images import export_blobs, export_stored, push_stored

__all__ = [
    "PACKED_RATIO",
    "BlobStore",
    "ExportRequest",
    "FuseConnection",
    "ImageExporter",
    "NodeAttributes",
    "Packing",
    "PushedFile",
    "RegistryBlobs",
    "export_blobs",
    "export_disk",
    "export_image",
    "export_stored",
    "fetch_program",
    "find_overlay_layers",
    "image_packing",
    "push_sqsh",
    "push_stored",
    "read_sidecar",
    "record_start",
    "run_fetch_program",
    "verify_sqsh_file",
]

__getattr__ = lazy_face(
    __name__,
    {
        "comparison": "ImageExporter",
        "destination": "export_disk",
        "export": "ExportRequest export_image",
        "node_program": "fetch_program run_fetch_program",
        "packing": "Packing image_packing record_start",
        "pushed_file": "PushedFile push_sqsh",
        "sidecar": "read_sidecar verify_sqsh_file",
        "sources.blob_store": "BlobStore PACKED_RATIO",
        "sources.engine_source": "find_overlay_layers",
        "sources.registry_source": "RegistryBlobs",
        "start": "FuseConnection NodeAttributes",
        "stored_images": "export_blobs export_stored push_stored",
    },
)
