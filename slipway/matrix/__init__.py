"""versions.yaml -> the list of images, and what is derived from a row: tags, URIs, facts.

In comes text, out come frozen dataclasses, or every error of the file with its line. Pure: no
Docker, no AWS, no network, no date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.consistency import AXIS
    from slipway.matrix.image_tags import image_tag, repository_name, tag_stem
    from slipway.matrix.load import load_matrix, select_images
    from slipway.matrix.model import (
        Addon,
        Base,
        Image,
        Matrix,
        Reference,
        Registry,
        Tool,
        WaitingBase,
        explain_image,
        past_support,
    )
    from slipway.matrix.references import (
        LOCAL_REGISTRY,
        ecr_host,
        image_uri,
        is_public,
        region_suffixes,
    )

__all__ = [
    "AXIS",
    "LOCAL_REGISTRY",
    "Addon",
    "Base",
    "Image",
    "Matrix",
    "Reference",
    "Registry",
    "Tool",
    "WaitingBase",
    "ecr_host",
    "explain_image",
    "image_tag",
    "image_uri",
    "is_public",
    "load_matrix",
    "past_support",
    "region_suffixes",
    "repository_name",
    "select_images",
    "tag_stem",
]

__getattr__ = lazy_face(
    __name__,
    {
        "consistency": "AXIS",
        "image_tags": "image_tag repository_name tag_stem",
        "load": "load_matrix select_images",
        "model": (
            "Addon Base Image Matrix Reference Registry Tool WaitingBase explain_image past_support"
        ),
        "references": "LOCAL_REGISTRY ecr_host image_uri is_public region_suffixes",
    },
)
