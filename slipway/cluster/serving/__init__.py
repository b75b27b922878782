"""An endpoint for a model in S3: its kind -> settings of a server, documents, and the endpoint.

The server's image is a reference of versions.yaml. Documents are made without AWS where the
model's config.json is at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.serving.endpoint_change import (
        delete_endpoint,
        deploy_model,
        invoke_once,
        show_endpoint,
    )
    from slipway.cluster.serving.endpoint_documents import EndpointOptions

__all__ = ["EndpointOptions", "delete_endpoint", "deploy_model", "invoke_once", "show_endpoint"]

__getattr__ = lazy_face(
    __name__,
    {
        "endpoint_change": "delete_endpoint deploy_model invoke_once show_endpoint",
        "endpoint_documents": "EndpointOptions",
    },
)
