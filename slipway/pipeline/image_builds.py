"""Plan steps -> images in the engine: bases once each, N builds at a time, one log an image."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from slipway.core import (
    Event,
    Project,
    SlipwayError,
    UsageError,
    human_bytes,
)
from slipway.derive import BuildInputs, is_locked, launcher_files, render_dockerfile
from slipway.engine import BuildRequest, ContextFile, build_image, find_image_id, inspect_image
from slipway.matrix import Image, Matrix, image_tag, repository_name
from slipway.pipeline.base_images import ensure_base
from slipway.pipeline.context import PipelineContext
from slipway.records import BuildRecord, ImageRecord, load_record, save_record
from slipway.wheels import make_image_context

BUILD_ID_LABEL = "io.slipway.build-id"


@dataclass(frozen=True)
class ImageBuild:
    """How one image's build ended: a record, or the failure."""

    image: Image
    built: BuildRecord | None
    failure: SlipwayError | None = None
    fresh: bool = False  # built now, rather than found up to date


def image_reference(matrix: Matrix, image: Image, build_id: str) -> str:
    """Repository and immutable tag of an image, without a registry host."""
    return f"{repository_name(image, matrix.repository_prefix)}:{image_tag(image, build_id)}"


def launcher_context(project: Project) -> tuple[ContextFile, ...]:
    """The launcher's files as they stand in the image."""
    return tuple(
        ContextFile(f"launcher/{file.target}", file.source, file.mode)
        for file in launcher_files(project)
    )


def is_built(shop: PipelineContext, image: Image, inputs: BuildInputs) -> BuildRecord | None:
    """The record of a build that is up to date and whose image is still in the engine."""
    built = load_record(shop.project, image.name).built
    if built is None or built.build_id != inputs.build_id:
        return None
    return built if find_image_id(shop.engine, built.reference) == built.image_id else None


def _build_one(shop: PipelineContext, image: Image, inputs: BuildInputs, base: str) -> BuildRecord:
    started = time.monotonic()
    task = f"build {image.name}"
    shop.on_event(Event("start", task))
    tools = tuple(shop.matrix.tools.values())
    reference = image_reference(shop.matrix, image, inputs.build_id)
    request = BuildRequest(
        dockerfile=render_dockerfile(image, shop.locks, tools, shop.project.templates),
        context=(
            *make_image_context(
                shop.project, shop.engine, shop.matrix, image, base, shop.locks, shop.on_event
            ),
            *launcher_context(shop.project),
        ),
        tags=(reference,),
        build_args={"BASE_REGISTRY": base.partition(f"/{image.base.repository}:")[0]},
        labels={BUILD_ID_LABEL: inputs.build_id},
        secrets={},
    )
    made = build_image(
        shop.engine,
        request,
        task=task,
        credentials=shop.credentials,
        on_event=shop.on_event,
        log=shop.project.logs / f"build-{image.name}.log",
        cancel=shop.cancel,
    )
    size = int(inspect_image(shop.engine, made)["Size"])
    seconds = time.monotonic() - started
    built = BuildRecord(inputs.build_id, inputs.as_json(), reference, made, size, seconds)
    save_record(shop.project, image.name, ImageRecord(built=built))
    shop.on_event(Event("done", task, text=human_bytes(size)))
    return built


def require_locked(images: Sequence[Image], inputs: Mapping[str, BuildInputs]) -> None:
    """Refuse images whose base or requirements are not pinned; raises UsageError naming them."""
    open_ones = [image.name for image in images if not is_locked(inputs[image.name])]
    if open_ones:
        raise UsageError(
            f"not everything is pinned for {', '.join(open_ones[:5])}"
            + (f" and {len(open_ones) - 5} more" if len(open_ones) > 5 else ""),
            cure="Run `./inv lock` where the registries can be reached, or build with --unlocked.",
        )


def build_images(
    shop: PipelineContext, images: Sequence[Image], inputs: Mapping[str, BuildInputs], jobs: int
) -> tuple[ImageBuild, ...]:
    """Build what is not up to date, `jobs` at a time. One failure never cancels the others.

    Images of one base follow each other, and the first of them fetches it, so each base is pulled
    once whatever `jobs` is.
    """
    base_locks = {image.base.name: threading.Lock() for image in images}
    failed_bases: dict[str, SlipwayError] = {}

    def one(image: Image) -> ImageBuild:
        if shop.cancel.is_set():
            return ImageBuild(image, None, SlipwayError("not started: interrupted"))
        if found := is_built(shop, image, inputs[image.name]):
            return ImageBuild(image, found)
        try:
            with base_locks[image.base.name]:
                if earlier := failed_bases.get(image.base.name):
                    raise earlier
                try:
                    base = ensure_base(shop, image.base)
                except SlipwayError as error:
                    failed_bases[image.base.name] = error
                    raise
            return ImageBuild(image, _build_one(shop, image, inputs[image.name], base), fresh=True)
        except SlipwayError as error:
            shop.on_event(Event("failed", f"build {image.name}", text=error.what))
            return ImageBuild(image, None, error)

    ordered = sorted(images, key=lambda image: (image.base.name, image.name))
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = [pool.submit(one, image) for image in ordered]
        try:
            outcomes = [future.result() for future in futures]
        except KeyboardInterrupt:
            shop.cancel.set()  # open builds close their connection, and the engine stops them
            raise
    return tuple(outcomes)
