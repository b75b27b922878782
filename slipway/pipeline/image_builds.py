"""The third descent of a build: images in the engine, N at a time, one log an image."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from slipway import engine
from slipway.core import Event, SlipwayError, human_bytes
from slipway.derive import BuildInputs
from slipway.matrix import Image, image_depth
from slipway.pipeline import appended
from slipway.pipeline.base_images import BaseImages, base_reference
from slipway.pipeline.build_requests import build_request
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import ImageRun, StageResult
from slipway.pipeline.recording import note_engine_layers
from slipway.pipeline.targets import TargetImages, is_taken, take_shared_image
from slipway.records import BuildRecord, ImageRecord, save_record


def is_built(context: PipelineContext, run: ImageRun, inputs: BuildInputs) -> bool:
    """Whether the recorded build is up to date and its image is still in the engine."""
    built = run.record.built
    if built is None or built.build_id != inputs.build_id:
        return False
    return engine.find_image_id(context.engine, built.reference) == built.image_id


def build_images(
    context: PipelineContext,
    bases: BaseImages,
    runs: Sequence[ImageRun],
    inputs: Mapping[str, BuildInputs],
    jobs: int,
    there: TargetImages | None = None,
) -> None:
    """Build what is not up to date, `jobs` at a time. One failure never cancels the others.

    What the target has (`there`) is taken from it in place of a build, and of an own build too.

    Each run gets the result of its build, or its failure. Images of one base follow each other, and
    the first of them fetches it, so each base is pulled once whatever `jobs` is. An image that
    stands on others of the matrix comes after them.
    """
    ordered = sorted(runs, key=lambda run: (run.image.base.name, run.image.name))
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for depth in sorted({image_depth(run.image) for run in ordered}):
            futures = [
                pool.submit(_build_run, context, bases, run, inputs[run.image.name], there)
                for run in ordered
                if image_depth(run.image) == depth
            ]
            try:
                for future in futures:
                    future.result()
            except KeyboardInterrupt:
                context.cancel.set()  # open builds close their connection: the engine stops them
                raise


def _build_run(
    context: PipelineContext,
    bases: BaseImages,
    run: ImageRun,
    inputs: BuildInputs,
    there: TargetImages | None,
) -> None:
    """Have one image in the engine: its base, its context, the build."""
    if context.cancel.is_set():
        run.failure = SlipwayError("not started: interrupted")
        return
    shared = there.images.get(run.image.name) if there else None
    detail = ""
    try:
        stands = shared is None or (there is not None and is_taken(run, shared, there.target))
        if stands and is_built(context, run, inputs):
            run.steps.append(StageResult("build", False, 0.0, run.built.reference))
            note_engine_layers(context, run, base_reference(context, run.image.base))
            return
        if shared is not None:
            run.record = take_shared_image(context, run.image, inputs, shared)
            run.taken = True
            detail = f", taken from {shared.by_digest}"
        else:
            run.record = ImageRecord(built=_build(context, run.image, inputs, bases))
    except SlipwayError as error:
        context.on_event(Event("failed", f"build {run.image.name}", text=error.what))
        run.failure = error
        return
    save_record(context.project, run.image.name, run.record)
    note_engine_layers(context, run, base_reference(context, run.image.base))
    run.steps.append(StageResult("build", True, run.built.seconds, run.built.reference + detail))


def _build(
    context: PipelineContext, image: Image, inputs: BuildInputs, bases: BaseImages
) -> BuildRecord:
    base = bases.ensure(image.base)
    started = time.monotonic()
    task = f"build {image.name}"
    context.on_event(Event("start", task))
    request = build_request(context, image, inputs, base)
    image_id = _append(context, image, inputs, bases, request) or engine.build_image(
        context.engine,
        request,
        engine.BuildAttempt(
            task=task,
            credentials=context.credentials,
            on_event=context.on_event,
            log=context.project.logs / f"build-{image.name}.log",
            cancel=context.cancel,
        ),
    )
    size = int(engine.inspect_image(context.engine, image_id)["Size"])
    seconds = time.monotonic() - started
    context.on_event(Event("done", task, text=human_bytes(size)))
    return BuildRecord(inputs.build_id, inputs.as_json(), request.tags[0], image_id, size, seconds)


def _append(
    context: PipelineContext,
    image: Image,
    inputs: BuildInputs,
    bases: BaseImages,
    request: engine.BuildRequest,
) -> str | None:
    """The image as every machine makes it; None where that cannot be, with the reason said."""
    base = image.base
    try:
        below = appended.EngineBase(
            base,
            bases.ensure(base),
            base_reference(context, base),
            bases.packages(base) if image.python_addons else None,
        )
        return appended.load_appended(context, image, below, request, inputs.layers)
    except SlipwayError as error:
        if context.cancel.is_set():
            raise
        text = f"built from its Dockerfile, with a digest of this engine's own: {error.what}"
        context.on_event(Event("notice", f"build {image.name}", text=text))
        return None
