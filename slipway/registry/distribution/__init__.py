"""The OCI distribution protocol over HTTP: manifests and blobs, logins, retries.

It knows hosts, repositories and digests; neither ECR nor an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.distribution.auth import forget_credentials
    from slipway.registry.distribution.blob_transfer import (
        BlobDelivery,
        BlobTransfer,
        FileBlob,
        MemoryBlob,
        RegistryBlob,
        Repository,
        deliver_blobs,
    )
    from slipway.registry.distribution.blob_upload import upload_blob
    from slipway.registry.distribution.registry_client import RegistryClient
    from slipway.registry.distribution.retry import RetryPolicy

__all__ = [
    "BlobDelivery",
    "BlobTransfer",
    "FileBlob",
    "MemoryBlob",
    "RegistryBlob",
    "RegistryClient",
    "Repository",
    "RetryPolicy",
    "deliver_blobs",
    "forget_credentials",
    "upload_blob",
]

__getattr__ = lazy_face(
    __name__,
    {
        "auth": "forget_credentials",
        "blob_transfer": (
            "BlobDelivery BlobTransfer FileBlob MemoryBlob RegistryBlob Repository deliver_blobs"
        ),
        "blob_upload": "upload_blob",
        "registry_client": "RegistryClient",
        "retry": "RetryPolicy",
    },
)
