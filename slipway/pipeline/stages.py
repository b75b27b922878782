"""The stages after a build, each done only when it is not done already."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import engine, registry, sqsh, squashfs, verify
from slipway.core import SlipwayError
from slipway.matrix import image_tag, repository_name
from slipway.pipeline import appended, targets
from slipway.pipeline.base_images import BaseBlobs, BaseImages, base_reference
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import ImageRun, StageResult, export_request
from slipway.pipeline.settings import Settings
from slipway.records import ExportRecord, VerifyRecord

if TYPE_CHECKING:
    from slipway.pipeline.targets import TargetImages


class VerificationFailedError(SlipwayError):
    """The image was built, but it is not what the matrix says."""


def verify_stage(
    context: PipelineContext, bases: BaseImages, run: ImageRun, *, again: bool, only: str = ""
) -> StageResult:
    """Run the image's checks unless exactly this image has passed exactly these checks.

    `only` runs those whose names match; that they pass is recorded nowhere.
    """
    image, built, old = run.image, run.built, run.record.verified
    suite = verify.suite_hash(context.project, image, context.locks)
    if old and not again and not only and (old.image_id, old.suite) == (built.image_id, suite):
        return StageResult("verify", False, 0.0, f"{old.passed} checks passed earlier")
    log = context.project.logs / f"verify-{image.name}.log"
    report = verify.verify_image(
        context.project,
        context.engine,
        verify.VerifyRequest(
            image,
            built.reference,
            bases.ensure(image.base),
            context.locks,
            context.matrix.tools,
            only,
        ),
        on_event=context.on_event,
        log=log,
    )
    if report.failures:
        raise VerificationFailedError(
            f"{image.name} failed {len(report.failures)} of its checks:\n  - "
            + "\n  - ".join(report.failures),
            cure=f"The whole report is in {log}. Nothing was exported or pushed.",
        )
    passed = f"{report.passed} check{'s' if report.passed != 1 else ''} passed"
    if only:
        return StageResult("verify", True, report.seconds, f"{passed} (--only {only})")
    new = VerifyRecord(built.image_id, suite, report.passed, report.deselected_gpu, report.seconds)
    run.save(context.project, verified=new)
    needs_gpu = f", {new.deselected} need a GPU and were NOT run" if new.deselected else ""
    return StageResult("verify", True, new.seconds, f"{passed}{needs_gpu}")


def export_stage(
    context: PipelineContext, run: ImageRun, settings: Settings, *, force: bool
) -> StageResult:
    """Export the image's .sqsh unless it is there already.

    Like a tag, its name says which build it is, and never moves: a job that runs from a file must
    not find another build in it after a requeue.
    """
    built = run.built
    request = export_request(context.project, run, settings, force=force)
    path = request.destination
    before = _file_identity(path)
    started = time.monotonic()
    sidecar = sqsh.export_image(
        context.engine,
        built.reference,
        replace(request, archives=appended.OwnLayers.of(context.project).archives),
        cache=squashfs.layer_cache(context.project, settings.sqsh_cache),
        on_event=context.on_event,
    )
    fresh = _file_identity(path) != before
    old = run.record.exported
    if not fresh and old and old.path == str(path):
        return StageResult("sqsh", False, 0.0, str(path))
    seconds = time.monotonic() - started
    new = ExportRecord(built.image_id, str(path), sidecar.digest, sidecar.size, seconds)
    run.save(context.project, exported=new)
    return StageResult("sqsh", fresh, seconds, str(path))


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Tells one file at `path` from another that replaces it."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def push_stage(
    context: PipelineContext, run: ImageRun, settings: Settings, there: TargetImages
) -> StageResult:
    """Push the image unless the target has it already under its immutable tag."""
    image, built, target = run.image, run.built, there.target
    name = repository_name(image, context.matrix.repository_prefix)
    tag = image_tag(image, built.build_id)
    old = run.record.pushed.get(target.name)
    shared = there.images.get(image.name)
    if old and shared and (old.image_id, old.digest) == (built.image_id, shared.digest):
        return StageResult("push", False, 0.0, f"{old.uri}@{old.digest}")
    targets.prepare_image_repository(
        target, context.matrix, name, settings.sharing, context.on_event
    )
    recipe = built.inputs["base"]
    with BaseBlobs(context, image.base, recipe) as base:
        result = registry.push_image(
            context.engine,
            built.reference,
            target,
            name,
            tag,
            credentials=context.credentials,
            on_event=context.on_event,
            movable=False,  # a build's tag never moves, not in the local registry either
            packer=registry.ImagePacker(
                context.project.packed, base.find, appended.OwnLayers.of(context.project).transfers
            ),
        )
    if image.base.registry is None and image.base.image is None:
        targets.keep_shared_base(context, image.base, recipe, target, result.digest)
    appended.keep_ran_steps(
        context, image, base_reference(context, image.base), built.inputs["layers"], target
    )
    new = run.save_push(context.project, target.name, result)
    return StageResult("push", not result.already, new.seconds, f"{new.uri}@{new.digest}")


def document_stage(
    context: PipelineContext, bases: BaseImages, run: ImageRun, there: TargetImages
) -> StageResult:
    """Put the bill of materials and the build's record beside the pushed image."""
    pushed = run.record.pushed[there.target.name]
    if pushed.documented:
        return StageResult("bill", False, 0.0, f"beside {pushed.by_digest}")
    image = run.image
    facts = engine.inspect_image(context.engine, bases.ensure(image.base))
    sources = targets.DocumentSources(
        context.checkout,
        context.credentials,
        context.on_event,
        base_layers=len(facts["RootFS"]["Layers"]),
        log=None if run.taken else context.project.logs / f"build-{image.name}.log",
        nearer=lambda pushed: appended.described_by_engine(context, run.built.image_id, pushed),
    )
    return targets.attach_documents(sources, run, there.target)
