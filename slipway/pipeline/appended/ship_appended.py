"""The main job without an engine: build, export and push, each done only where it is not done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import registry, sqsh
from slipway.append import AppendedBlobs, LayerBlob
from slipway.core import Reporter, SlipwayError, exclusive, interrupt_behind, say
from slipway.derive import grouped_notes
from slipway.matrix import Image, images_below
from slipway.pipeline import summary
from slipway.pipeline.appended.appended_builds import (
    AppendContext,
    append_stage,
    deliver_stage,
    document_appended,
    export_appended,
    open_delivery,
)
from slipway.pipeline.appended.base_sources import BaseSources, check_one_base
from slipway.pipeline.checkout import Checkout, require_locked
from slipway.pipeline.context import push_target
from slipway.pipeline.image_run import ImageRun, StageResult
from slipway.pipeline.recording import recorded_run
from slipway.pipeline.settings import Settings, ShipRequest
from slipway.pipeline.targets import (
    SociRequest,
    TargetImages,
    WantedBuild,
    find_shared_images,
    push_sqsh_stage,
    soci_stage,
)
from slipway.records import BuildRecord, ImageRecord, PushRecord

if TYPE_CHECKING:
    from slipway.registry import Target

NOT_VERIFIED = StageResult(
    "verify", False, 0.0, "the checks run in a container of the image, and there is no engine", True
)


def ship_appended(
    root: Path, settings: Settings, names: Sequence[str], request: ShipRequest
) -> None:
    """Do the stages for the images named, without an engine.

    The checks of an image run in a container of it, so they are not run, and the summary says so.
    Raises SlipwayError after all images if any failed.
    """
    started = time.monotonic()
    checkout = Checkout.at(root)
    images = checkout.chosen(names)
    below = images_below(images)
    check_one_base(images, request.base_from)
    inputs = checkout.inputs((*below, *images))
    if not request.unlocked:
        require_locked((*below, *images), inputs)
    with exclusive(checkout.project.state / "lock", " ".join([request.stages[-1], *names])):
        if "generate" in request.stages:
            checkout.write_dockerfiles((*below, *images))
        records = checkout.records(images)
        steps = checkout.plan(images, inputs, records, date.today())
        for line in grouped_notes(note for step in steps for note in step.notes):
            say(line)
        target = push_target(checkout, settings) if "push" in request.stages else None
        asked = target or _running_target(checkout, settings, (*below, *images))
        credentials = registry.credentials_for([asked] if asked else [], checkout.project)
        runs = [ImageRun(image, records[image.name]) for image in images]
        with (
            recorded_run(checkout, runs, request.stages) as log,
            Reporter(log.on_event) as reporter,
            BaseSources(checkout, settings.region, request.base_from, credentials, asked) as bases,
        ):
            context = AppendContext(
                checkout, settings, bases, credentials, reporter.on_event, inputs, asked
            )
            there = _ask_target(context, runs, target) if target else None
            for run in runs:
                _ship(context, run, request, there)
                if run.failure:
                    reporter.say(run.failure_line)
    summary.show_runs(
        runs,
        time.monotonic() - started,
        checkout.project,
        engine_url="",
        as_json=request.as_json,
    )
    summary.raise_failures(runs)


def _running_target(
    checkout: Checkout, settings: Settings, images: Sequence[Image]
) -> Target | None:
    """A target that may keep what only an engine makes, for a run that pushes nothing: bases of
    our own, and layers of steps.

    None where no image has any, or where there is no target to ask.
    """
    own_base = any(image.base.root.registry is None for image in images)
    steps = any(
        addon.system or addon.source or (image.bytecode and addon.requirements)
        for image in images
        for addon in image.own_addons
    )
    if not own_base and not steps:
        return None
    if settings.target == "local":
        status = registry.local_registry_status(checkout.project)
        return status.target if status.running else None
    try:
        return push_target(checkout, settings)
    except SlipwayError:  # no region, no login: what is here may be enough
        return None


def _ship(
    context: AppendContext, run: ImageRun, request: ShipRequest, there: TargetImages | None
) -> None:
    try:
        if there and run.image.name in there.images:
            _take(context, run, request, there)
            return
        try:
            _make(context, run, request, there.target if there else None)
        except registry.ImmutableTagError:
            if there is None:
                raise
            now = _ask_target(context, [run], there.target)
            if run.image.name not in now.images:
                raise
            run.steps.clear()  # another builder pushed its own while this one was made
            _take(context, run, request, now)
    except SlipwayError as error:
        if interrupt := interrupt_behind(error):
            raise interrupt from error
        run.failure = error


def _make(
    context: AppendContext, run: ImageRun, request: ShipRequest, target: Target | None
) -> None:
    """Build the image here, and do with it what the request says."""
    with contextlib.ExitStack() as stack:
        delivery = stack.enter_context(open_delivery(context, run, target)) if target else None
        appended = append_stage(context, run, delivery)
        if "verify" in request.stages:
            run.steps.append(NOT_VERIFIED)
        pushed = None
        if target and delivery:
            pushed = deliver_stage(context, run, appended, delivery, target)
    if "sqsh" in request.stages:
        blobs, digest = AppendedBlobs(appended), appended.manifest.digest
        run.steps.append(export_appended(context, run, blobs, digest, force=request.force))
    if target and pushed:
        run.steps.append(pushed)
        base_layers = len(context.base(run.image).layers)
        run.steps.append(document_appended(context, run, base_layers, target))
        _index(context, run, target, appended.layers)
    _push_sqsh(context, run, request, target)


def _push_sqsh(
    context: AppendContext, run: ImageRun, request: ShipRequest, target: Target | None
) -> None:
    if target and "push sqsh" in request.stages:
        run.steps.append(push_sqsh_stage(run, target, context.credentials, context.on_event))


def _index(
    context: AppendContext, run: ImageRun, target: Target, layers: Sequence[LayerBlob]
) -> None:
    """The second tag, where it is asked for."""
    if not context.settings.soci:
        return
    files = {layer.digest: layer.path for layer in layers}
    request = SociRequest(context.checkout.matrix, target, context.settings.region, files)
    run.steps.append(
        soci_stage(context.checkout.project, run, request, context.credentials, context.on_event)
    )


def _ask_target(context: AppendContext, runs: Sequence[ImageRun], target: Target) -> TargetImages:
    """What the target has under the tags of these builds. Raises RegistryError."""
    wanted = [WantedBuild(run.image, context.inputs[run.image.name].build_id) for run in runs]
    shared = find_shared_images(wanted, context.checkout.matrix, target, context.credentials)
    return TargetImages(target, shared)


def _take(context: AppendContext, run: ImageRun, request: ShipRequest, there: TargetImages) -> None:
    """Go on from the target's image: it was built of the same inputs, whoever built it."""
    target, shared = there.target, there.images[run.image.name]
    inputs = context.inputs[run.image.name]
    path, tag = shared.uri.removeprefix(f"{target.host}/").rsplit(":", 1)
    built = BuildRecord(
        inputs.build_id,
        inputs.as_json(),
        f"{path}:{tag}",
        shared.config,
        shared.size,
        0.0,
    )
    pushed = PushRecord(
        shared.config, shared.uri, shared.digest, shared.media_type, shared.size, 0.0
    )
    if run.record.built is None or run.record.built.image_id != shared.config:
        run.record = ImageRecord()
    run.save(
        context.checkout.project,
        built=built,
        pushed={**run.record.pushed, target.name: pushed},
    )
    run.steps.append(StageResult("build", False, 0.0, f"in the registry: {shared.by_digest}"))
    run.steps.append(StageResult("push", False, 0.0, shared.by_digest))
    if "verify" in request.stages:
        run.steps.append(NOT_VERIFIED)
    if "sqsh" in request.stages:
        with registry.RegistryClient(target.host, context.credentials) as client:
            blobs = sqsh.RegistryBlobs(client, path)
            run.steps.append(
                export_appended(context, run, blobs, shared.digest, force=request.force)
            )
    _index(context, run, target, ())
    _push_sqsh(context, run, request, target)
