"""The main job and its parts, as the tasks call them: plan, apply, and a summary for a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from slipway.core import SlipwayError, exclusive, free_bytes, human_bytes, say, write_atomic
from slipway.derive import PlanStep, disk_need, generated_dockerfiles, grouped_notes
from slipway.matrix import Image, select_images
from slipway.pipeline import stages, summary
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.context import PipelineContext, pipeline_context, push_target
from slipway.pipeline.host_tools import set_up_host
from slipway.pipeline.image_builds import ImageBuild, build_images, require_locked
from slipway.pipeline.settings import Settings
from slipway.pipeline.stages import StageResult
from slipway.pipeline.summary import ImageRun
from slipway.registry import Target
from slipway.squashfs import layer_cache

MARGIN = 1_000_000_000
"""Bytes that stay free beside what a plan needs: logs, build cache, the engine's own metadata."""


def chosen_images(house: Checkout, names: Sequence[str]) -> tuple[Image, ...]:
    """The images that a doing task works on: those named, else the default image."""
    return select_images(house.matrix, names or [house.matrix.default_image])


def write_dockerfiles(house: Checkout, images: Sequence[Image]) -> None:
    """Write the Dockerfiles of these images where they differ from what the matrix gives."""
    wanted = {house.project.generated / image.name / "Dockerfile" for image in images}
    texts = generated_dockerfiles(house.project, house.matrix, house.locks)
    for path in sorted(wanted):
        if not path.exists() or path.read_text() != texts[path]:
            write_atomic(path, texts[path])
            say(f"wrote {path.relative_to(house.project.root)}")


def check_disk(shop: PipelineContext, steps: Sequence[PlanStep]) -> None:
    """Refuse to start what the engine's disk cannot hold; raises SlipwayError with both figures."""
    need = disk_need(steps, shop.locks.bases)
    free = free_bytes(shop.engine.data_root)
    todo = any(step.action != "up to date" for step in steps)
    if todo and free is not None and need.needed + MARGIN > free:
        raise SlipwayError(
            f"the builds need about {human_bytes(need.needed + MARGIN)} in the engine, and "
            f"{human_bytes(free)} are free",
            where=shop.engine.data_root,
            cure="Free space there (docker system prune), or start with fewer images.",
        )


def after_build(
    shop: PipelineContext,
    outcome: ImageBuild,
    steps: Sequence[str],
    settings: Settings,
    target: Target | None,
    force: bool,
) -> ImageRun:
    """Verify, export and push one built image, as far as `steps` says."""
    image, built = outcome.image, outcome.built
    if built is None:
        return ImageRun(image, [], outcome.failure)
    seconds = built.seconds if outcome.fresh else 0.0
    made = ImageRun(image, [StageResult("build", outcome.fresh, seconds, built.reference)])
    try:
        if "verify" in steps:
            made.steps.append(stages.verify_stage(shop, image, built, again=steps[-1] == "verify"))
        if "sqsh" in steps:
            cache = layer_cache(shop.project, settings.sqsh_cache)
            folder, options = settings.sqsh_dir, settings.sqsh_options
            made.steps.append(
                stages.export_stage(shop, image, built, cache, options, folder=folder, force=force)
            )
        if target:
            made.steps.append(stages.push_stage(shop, image, built, target, settings.sharing))
    except SlipwayError as error:
        made.failure = error
    return made


def ship_images(
    root: Path,
    settings: Settings,
    names: Sequence[str],
    steps: Sequence[str],
    *,
    unlocked: bool = False,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Do `steps` for the images named. Raises SlipwayError after all of them when any failed."""
    started = time.monotonic()
    house = Checkout.at(root)
    images = chosen_images(house, names)
    decided = house.inputs(images)
    if not unlocked:
        require_locked(images, decided)
    with exclusive(house.project.state / "lock", " ".join([steps[-1], *names])):
        if "setup" in steps:
            set_up_host()
        if "generate" in steps:
            write_dockerfiles(house, images)
        todo = house.plan(images, decided, date.today())
        for line in grouped_notes(note for step in todo for note in step.notes):
            say(line)
        # Before the builds: a wrong account or a missing right should not show after half an hour.
        target = push_target(house, settings) if "push" in steps else None
        with pipeline_context(house, settings, target) as (shop, reporter):
            check_disk(shop, todo)
            made = []
            for outcome in build_images(shop, images, decided, settings.jobs):
                result = after_build(shop, outcome, steps, settings, target, force)
                if result.failure:
                    first = result.failure.what.splitlines()[0].rstrip(":")
                    reporter.say(f"{result.image.name}: FAILED: {first}")
                made.append(result)
    summary.show_runs(house.project, made, time.monotonic() - started, as_json=as_json)
    if failed := [m for m in made if m.failure]:
        told = "\n".join(f"{m.image.name}: {m.failure}" for m in failed)
        raise SlipwayError(f"{len(failed)} of {len(made)} images failed\n{told}")
