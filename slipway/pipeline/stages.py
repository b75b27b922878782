"""The steps after a build, each done only when it is not done already; and what they made."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from slipway.core import SlipwayError
from slipway.matrix import Image, image_tag, repository_name
from slipway.pipeline.base_images import ensure_base
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.settings import PullPermissions
from slipway.records import (
    BuildRecord,
    ExportRecord,
    PushRecord,
    VerifyRecord,
    load_record,
    save_record,
)
from slipway.registry import RegistryClient, Target, prepare_repository, push_image
from slipway.sqsh import export_image
from slipway.squashfs import LayerCache, SqshOptions
from slipway.verify import suite_hash, verify_image


class VerificationFailedError(SlipwayError):
    """The image was built, but it is not what the matrix says."""


def verify_stage(
    shop: PipelineContext, image: Image, built: BuildRecord, *, again: bool = False
) -> StageResult:
    """Run the image's checks unless exactly this image has passed exactly these checks."""
    record = load_record(shop.project, image.name)
    suite = suite_hash(shop.project, image)
    old = record.verified
    if old and not again and (old.image_id, old.suite) == (built.image_id, suite):
        return StageResult("verify", False, 0.0, f"{old.passed} checks passed earlier")
    log = shop.project.logs / f"verify-{image.name}.log"
    report = verify_image(
        shop.project,
        shop.engine,
        image,
        built.reference,
        ensure_base(shop, image.base),
        on_event=shop.on_event,
        log=log,
    )
    if report.failures:
        raise VerificationFailedError(
            f"{image.name} failed {len(report.failures)} of its checks:\n  - "
            + "\n  - ".join(report.failures),
            cure=f"The whole report is in {log}. Nothing was exported or pushed.",
        )
    new = VerifyRecord(built.image_id, suite, report.passed, report.deselected_gpu, report.seconds)
    save_record(shop.project, image.name, dataclasses.replace(record, verified=new))
    needs_gpu = f", {new.deselected} need a GPU and were NOT run" if new.deselected else ""
    return StageResult("verify", True, new.seconds, f"{new.passed} checks passed{needs_gpu}")


def sqsh_path(shop: PipelineContext, image: Image, built: BuildRecord, folder: Path | None) -> Path:
    """Where an image's .sqsh goes. Like a tag, the name says which build it is, and never moves:
    a job that runs from a file must not find another build in it after a requeue."""
    return (folder or shop.project.sqsh) / f"{image.name}-{built.build_id[:12]}.sqsh"


def export_stage(
    shop: PipelineContext,
    image: Image,
    built: BuildRecord,
    cache: LayerCache,
    options: SqshOptions,
    *,
    folder: Path | None = None,
    force: bool = False,
) -> StageResult:
    """Export the image's .sqsh unless it is there already."""
    path = sqsh_path(shop, image, built, folder)
    before = _stamp(path)
    started = time.monotonic()
    sidecar = export_image(
        shop.engine,
        built.reference,
        path,
        cache=cache,
        build_id=built.build_id,
        options=options,
        force=force,
        on_event=shop.on_event,
    )
    record = load_record(shop.project, image.name)
    if _stamp(path) == before and record.exported and record.exported.path == str(path):
        return StageResult("sqsh", False, 0.0, str(path))
    seconds = time.monotonic() - started
    new = ExportRecord(built.image_id, str(path), sidecar.digest, sidecar.size, seconds)
    save_record(shop.project, image.name, dataclasses.replace(record, exported=new))
    return StageResult("sqsh", _stamp(path) != before, seconds, str(path))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells one file at `path` from another that replaces it."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def push_stage(
    shop: PipelineContext,
    image: Image,
    built: BuildRecord,
    target: Target,
    sharing: PullPermissions,
) -> StageResult:
    """Push the image unless the target has it already under its immutable tag."""
    record = load_record(shop.project, image.name)
    name = repository_name(image, shop.matrix.repository_prefix)
    tag = image_tag(image, built.build_id)
    old = record.pushed.get(target.name)
    if old and old.image_id == built.image_id:
        with RegistryClient(target.host, shop.credentials) as registry:
            if registry.head(name, tag) == old.digest:
                return StageResult("push", False, 0.0, f"{old.uri}@{old.digest}")
    prepare_repository(target, name, consumers=sharing.consumers, sagemaker=sharing.sagemaker)
    result = push_image(
        shop.engine,
        built.reference,
        target,
        name,
        tag,
        credentials=shop.credentials,
        on_event=shop.on_event,
    )
    new = PushRecord(
        built.image_id,
        result.uri,
        result.digest,
        result.media_type,
        result.size_bytes,
        result.seconds,
    )
    entry = {**record.pushed, target.name: new}
    save_record(shop.project, image.name, dataclasses.replace(record, pushed=entry))
    return StageResult("push", not result.already, new.seconds, f"{new.uri}@{new.digest}")


@dataclass(frozen=True)
class StageResult:
    """One step's result. `fresh`: done now, rather than found done."""

    name: str
    fresh: bool
    seconds: float
    detail: str
