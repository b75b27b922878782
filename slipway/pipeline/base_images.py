"""Bases of images: by which reference they are known, and having them in the engine."""

from __future__ import annotations

from slipway.engine import find_image_id, pull_image
from slipway.local_base import ensure_local_base
from slipway.matrix import LOCAL_REGISTRY, Base, image_uri
from slipway.pipeline.context import PipelineContext


def base_reference(shop: PipelineContext, base: Base) -> str:
    """Where the base is, with its digest where that is recorded."""
    if base.registry is None:
        return f"{LOCAL_REGISTRY}/{base.repository}:{base.tag}"
    lock = shop.locks.bases.get(base.name)
    digest = lock.digest if lock else None
    return image_uri(base.registry, shop.region, base.repository, base.tag, digest).reference


def ensure_base(shop: PipelineContext, base: Base) -> str:
    """Have the base in the engine; gives its reference there."""
    if base.registry is None:
        log = shop.project.logs / f"base-{base.name}.log"
        return ensure_local_base(
            shop.project, shop.engine, base, shop.on_event, log, shop.credentials
        )
    reference = base_reference(shop, base)
    if find_image_id(shop.engine, reference) is None:
        pull_image(shop.engine, reference, credentials=shop.credentials, on_event=shop.on_event)
    return reference
