"""The registry on this machine: Debian's docker-registry on loopback, its process and its login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.local.local_registry import (
        docker_login_words,
        local_registry_login,
        local_registry_status,
        start_local_registry,
        stop_local_registry,
    )

__all__ = [
    "docker_login_words",
    "local_registry_login",
    "local_registry_status",
    "start_local_registry",
    "stop_local_registry",
]

__getattr__ = lazy_face(
    __name__,
    {
        "local_registry": (
            "docker_login_words local_registry_login local_registry_status start_local_registry "
            "stop_local_registry"
        ),
    },
)
