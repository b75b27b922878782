"""The ECR API: the caller's account, repositories and their policies. No image data passes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.ecr.aws_boundary import access_denied, aws_errors, tolerate
    from slipway.registry.ecr.ecr_client import (
        caller_account,
        connect_aws,
        connect_ecr,
        find_aws_credentials,
        make_client,
    )
    from slipway.registry.ecr.ecr_repository import (
        EcrRepository,
        ensure_repository,
        may_tag_move,
        remove_ecr_images,
    )
    from slipway.registry.ecr.policies import STAGING, pull_statements

__all__ = [
    "STAGING",
    "EcrRepository",
    "access_denied",
    "aws_errors",
    "caller_account",
    "connect_aws",
    "connect_ecr",
    "ensure_repository",
    "find_aws_credentials",
    "make_client",
    "may_tag_move",
    "pull_statements",
    "remove_ecr_images",
    "tolerate",
]

__getattr__ = lazy_face(
    __name__,
    {
        "aws_boundary": "access_denied aws_errors tolerate",
        "ecr_client": "caller_account connect_aws connect_ecr find_aws_credentials make_client",
        "ecr_repository": "EcrRepository ensure_repository may_tag_move remove_ecr_images",
        "policies": "STAGING pull_statements",
    },
)
