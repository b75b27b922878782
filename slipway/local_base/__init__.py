"""The embedded default base: a Debian root file system with CPU torch, made on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.local_base.base_image import ensure_local_base
    from slipway.local_base.recipe import local_base_id
    from slipway.local_base.rootfs import rootfs_id, rootfs_status

__all__ = ["ensure_local_base", "local_base_id", "rootfs_id", "rootfs_status"]

__getattr__ = lazy_face(
    __name__,
    {
        "base_image": "ensure_local_base",
        "recipe": "local_base_id",
        "rootfs": "rootfs_id rootfs_status",
    },
)
