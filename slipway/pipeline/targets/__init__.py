"""What a target has of our images: builds that are taken from it, aliases that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.pipeline.targets.aliases import (
        TargetImage,
        list_target,
        mirror_bases,
        promote_image,
        rollback_image_alias,
        show_target_image,
    )
    from slipway.pipeline.targets.image_differences import compare_images
    from slipway.pipeline.targets.image_documents import DocumentSources, attach_documents
    from slipway.pipeline.targets.pushed_sqsh import push_sqsh_stage
    from slipway.pipeline.targets.repositories import prepare_image_repository
    from slipway.pipeline.targets.shared_bases import (
        keep_shared_base,
        shared_base_place,
        take_shared_base,
    )
    from slipway.pipeline.targets.shared_images import (
        SharedImage,
        TargetImages,
        WantedBuild,
        find_shared_images,
        is_taken,
        take_shared_image,
    )
    from slipway.pipeline.targets.soci_tags import SociRequest, soci_stage
    from slipway.pipeline.targets.target_prune import prune_target

__all__ = [
    "DocumentSources",
    "SharedImage",
    "SociRequest",
    "TargetImage",
    "TargetImages",
    "WantedBuild",
    "attach_documents",
    "compare_images",
    "find_shared_images",
    "is_taken",
    "keep_shared_base",
    "list_target",
    "mirror_bases",
    "prepare_image_repository",
    "promote_image",
    "prune_target",
    "push_sqsh_stage",
    "rollback_image_alias",
    "shared_base_place",
    "show_target_image",
    "soci_stage",
    "take_shared_base",
    "take_shared_image",
]

__getattr__ = lazy_face(
    __name__,
    {
        "aliases": (
            "TargetImage list_target mirror_bases promote_image rollback_image_alias "
            "show_target_image"
        ),
        "image_differences": "compare_images",
        "image_documents": "DocumentSources attach_documents",
        "pushed_sqsh": "push_sqsh_stage",
        "repositories": "prepare_image_repository",
        "shared_bases": "keep_shared_base shared_base_place take_shared_base",
        "shared_images": (
            "SharedImage TargetImages WantedBuild find_shared_images is_taken take_shared_image"
        ),
        "soci_tags": "SociRequest soci_stage",
        "target_prune": "prune_target",
    },
)
