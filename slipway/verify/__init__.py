"""Whether an image is what the matrix says.

The checks are those of tests/image; here they are chosen, and run against containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.verify.capabilities import capabilities_of
    from slipway.verify.expectations import may_move
    from slipway.verify.image_checks import VerifyRequest, suite_hash, verify_image

__all__ = ["VerifyRequest", "capabilities_of", "may_move", "suite_hash", "verify_image"]

__getattr__ = lazy_face(
    __name__,
    {
        "capabilities": "capabilities_of",
        "expectations": "may_move",
        "image_checks": "VerifyRequest suite_hash verify_image",
    },
)
