"""The main job and its parts, as the tasks call them: plan, apply, and a summary for a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import registry
from slipway.core import (
    SlipwayError,
    UsageError,
    exclusive,
    free_bytes,
    human_bytes,
    interrupt_behind,
    say,
)
from slipway.derive import BuildInputs, PlanStep, disk_need, grouped_notes
from slipway.matrix import images_below
from slipway.pipeline import appended, stages, summary, targets
from slipway.pipeline.base_images import BaseImages
from slipway.pipeline.checkout import Checkout, require_locked
from slipway.pipeline.context import PipelineContext, pipeline_context
from slipway.pipeline.host_tools import set_up_host
from slipway.pipeline.image_builds import build_images
from slipway.pipeline.image_run import ImageRun
from slipway.pipeline.recording import recorded_run
from slipway.pipeline.settings import Settings, ShipRequest
from slipway.pipeline.targets import (
    TargetImages,
    WantedBuild,
    find_shared_images,
    take_shared_image,
)

if TYPE_CHECKING:
    from slipway.registry import Target

MARGIN = 1_000_000_000
"""Bytes that stay free beside what a plan needs: logs, build cache, the engine's own metadata."""


def check_disk(context: PipelineContext, steps: Sequence[PlanStep]) -> None:
    """Refuse to start what the engine's disk cannot hold; raises SlipwayError with both figures."""
    if all(step.action == "up to date" for step in steps):
        return
    need = disk_need(steps, context.locks.bases)
    free = free_bytes(context.engine.data_root)
    if free is not None and need.needed + MARGIN > free:
        raise SlipwayError(
            f"the builds need about {human_bytes(need.needed + MARGIN)} in the engine, and "
            f"{human_bytes(free)} are free",
            where=context.engine.data_root,
            cure="Free space there (docker system prune), or start with fewer images.",
        )


def ship_images(root: Path, settings: Settings, names: Sequence[str], request: ShipRequest) -> None:
    """Do the stages for the images named. Raises SlipwayError after all of them if any failed."""
    if request.no_engine:
        appended.ship_appended(root, settings, names, request)
        return
    if request.base_from:
        raise UsageError("--base-from is for runs with --no-engine", cure="Leave it out.")
    started = time.monotonic()
    checkout = Checkout.at(root)
    images = checkout.chosen(names)
    below = images_below(images)
    inputs = checkout.inputs((*below, *images))
    if not request.unlocked:
        require_locked((*below, *images), inputs)
    with exclusive(checkout.project.state / "lock", " ".join([request.stages[-1], *names])):
        if "setup" in request.stages:
            set_up_host()
        if "generate" in request.stages:
            checkout.write_dockerfiles((*below, *images))
        records = checkout.records((*below, *images))
        steps = checkout.plan((*below, *images), inputs, records, date.today())
        for line in grouped_notes(note for step in steps for note in step.notes):
            say(line)
        runs = [ImageRun(image, records[image.name]) for image in (*below, *images)]
        # The target before the builds: a wrong account or a missing right should not show after
        # half an hour.
        push = "push" in request.stages
        with (
            recorded_run(checkout, runs, request.stages) as log,
            pipeline_context(checkout, settings, push=push, record=log.on_event) as opened,
        ):
            context, reporter = opened
            target = context.target
            check_disk(context, steps)
            bases = BaseImages(context)
            there = None
            if target:
                wanted = [
                    WantedBuild(
                        run.image,
                        inputs[run.image.name].build_id,
                        run.record.pushed.get(target.name),
                    )
                    for run in runs
                ]
                shared = find_shared_images(wanted, context.matrix, target, context.credentials)
                there = TargetImages(target, shared)
            build_images(context, bases, runs, inputs, settings.jobs, there)
            for run in runs:
                if run.image not in below:  # what is below is built, and no more
                    finish_run(context, bases, run, settings, request, there)
                if run.failure:
                    reporter.say(run.failure_line)
            engine_url = context.engine.url
    summary.show_runs(
        runs,
        time.monotonic() - started,
        checkout.project,
        engine_url=engine_url,
        as_json=request.as_json,
    )
    summary.raise_failures(runs)


def finish_run(
    context: PipelineContext,
    bases: BaseImages,
    run: ImageRun,
    settings: Settings,
    request: ShipRequest,
    there: TargetImages | None,
) -> None:
    """Verify, export and push one built image, as far as the request says."""
    if run.failure:
        return
    try:
        if "verify" in request.stages:
            again = request.stages[-1] == "verify"
            run.steps.append(
                stages.verify_stage(context, bases, run, again=again, only=request.only)
            )
        pushed = None
        if there:
            # Before the .sqsh: the push decides whose image of this build id it is made of.
            try:
                pushed = stages.push_stage(context, run, settings, there)
            except registry.ImmutableTagError:
                _take_the_first(context, run, there.target)
                if "verify" in request.stages:
                    run.steps[-1] = stages.verify_stage(context, bases, run, again=False)
                pushed = stages.push_stage(context, run, settings, there)
        if "sqsh" in request.stages:
            run.steps.append(stages.export_stage(context, run, settings, force=request.force))
        if pushed and there:
            run.steps.append(pushed)
            run.steps.append(stages.document_stage(context, bases, run, there))
        if there and settings.soci:
            layers = registry.packed_layers(context.project.packed)
            layers |= appended.OwnLayers.of(context.project).files
            asked = targets.SociRequest(context.matrix, there.target, context.region, layers)
            run.steps.append(
                targets.soci_stage(
                    context.project, run, asked, context.credentials, context.on_event
                )
            )
        if there and "push sqsh" in request.stages:
            run.steps.append(
                targets.push_sqsh_stage(run, there.target, context.credentials, context.on_event)
            )
    except SlipwayError as error:
        if interrupt := interrupt_behind(error):
            raise interrupt from error
        run.failure = error


def _take_the_first(context: PipelineContext, run: ImageRun, target: Target) -> None:
    """The image that another builder pushed while this one was built, in its place."""
    image, built = run.image, run.built
    shared = find_shared_images(
        [WantedBuild(image, built.build_id)], context.matrix, target, context.credentials
    )
    if image.name not in shared:
        raise SlipwayError(
            "the target refused the tag as taken, and has nothing under it",
            where=target.host,
            cure="Somebody may be removing images there: run this again.",
        )
    inputs = BuildInputs(**built.inputs)
    run.record = take_shared_image(context, image, inputs, shared[image.name])
    run.taken = True
    run.save(context.project)
