"""The ECR API: the caller's account, repositories and their policies. No image data passes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.ecr.ecr_client import (
        access_denied,
        aws_errors,
        caller_account,
        connect_ecr,
    )
    from slipway.registry.ecr.ecr_repository import (
        EcrRepository,
        ensure_repository,
        may_tag_move,
    )
    from slipway.registry.ecr.policies import STAGING

__all__ = [
    "STAGING",
    "EcrRepository",
    "access_denied",
    "aws_errors",
    "caller_account",
    "connect_ecr",
    "ensure_repository",
    "may_tag_move",
]

__getattr__ = lazy_face(
    __name__,
    {
        "ecr_client": "access_denied aws_errors caller_account connect_ecr",
        "ecr_repository": "EcrRepository ensure_repository may_tag_move",
        "policies": "STAGING",
    },
)
