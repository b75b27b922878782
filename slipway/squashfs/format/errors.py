"""What goes wrong with squashfs images, in one line each."""

from __future__ import annotations

from slipway.core import SlipwayError


class SquashfsError(SlipwayError):
    """A squashfs image is damaged, or holds something that squashfs 4.0 does not have."""


class LayerError(SlipwayError):
    """A layer cannot be read or holds something that has no place in an image."""


class CacheError(SlipwayError):
    """The layer cache cannot be written or read."""
