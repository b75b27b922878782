"""The OCI distribution protocol over HTTP: manifests and blobs, logins, retries.

It knows hosts, repositories and digests; neither ECR nor an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.distribution.auth import forget_credentials
    from slipway.registry.distribution.registry_client import RegistryClient
    from slipway.registry.distribution.retry import RetryPolicy

__all__ = ["RegistryClient", "RetryPolicy", "forget_credentials"]

__getattr__ = lazy_face(
    __name__,
    {
        "auth": "forget_credentials",
        "registry_client": "RegistryClient",
        "retry": "RetryPolicy",
    },
)
