"""An image without an engine: what its Dockerfile adds, put on top of a base that stays away.

In come a base in a registry or an OCI layout and a build's context; out come new layers, a
configuration and a manifest, the same bytes on every machine. It never runs anything of the base,
and says so where something would have to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.append.append_build import AppendRequest, append_image
    from slipway.append.appended_image import AppendedImage
    from slipway.append.base_contents import packages_of_base
    from slipway.append.build_steps import NeedsEngineError, dockerfile_through
    from slipway.append.delivery import AppendedDelivery, DeliveryResult, deliver_appended
    from slipway.append.installation import installed_versions
    from slipway.append.layer_blobs import LayerBlob, LayerStore
    from slipway.append.ran_layers import bytecode_tar, compiled_sections, ran_sections
    from slipway.append.stored_blobs import AppendedBlobs, as_base, put_on, write_layout

__all__ = [
    "AppendRequest",
    "AppendedBlobs",
    "AppendedDelivery",
    "AppendedImage",
    "DeliveryResult",
    "LayerBlob",
    "LayerStore",
    "NeedsEngineError",
    "append_image",
    "as_base",
    "bytecode_tar",
    "compiled_sections",
    "deliver_appended",
    "dockerfile_through",
    "installed_versions",
    "packages_of_base",
    "put_on",
    "ran_sections",
    "write_layout",
]

__getattr__ = lazy_face(
    __name__,
    {
        "append_build": "AppendRequest append_image",
        "base_contents": "packages_of_base",
        "appended_image": "AppendedImage",
        "build_steps": "NeedsEngineError dockerfile_through",
        "delivery": "AppendedDelivery DeliveryResult deliver_appended",
        "layer_blobs": "LayerBlob LayerStore",
        "installation": "installed_versions",
        "ran_layers": "bytecode_tar compiled_sections ran_sections",
        "stored_blobs": "AppendedBlobs as_base put_on write_layout",
    },
)
