"""What a run knows of one image: its record, read once, and what each stage made of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Protocol

from slipway import sqsh
from slipway.core import Project, SlipwayError, human_seconds
from slipway.matrix import Image, Matrix, image_tag, repository_name
from slipway.pipeline.settings import Settings
from slipway.records import BuildRecord, ImageRecord, PushRecord, save_record

BUILD_ID_LABEL = "io.slipway.build-id"


def image_reference(matrix: Matrix, image: Image, build_id: str) -> str:
    """Repository and immutable tag of an image, without a registry host."""
    return f"{repository_name(image, matrix.repository_prefix)}:{image_tag(image, build_id)}"


@dataclass(frozen=True)
class StageResult:
    """One stage's result. `fresh`: done now, rather than found done; `skipped`: not done at all."""

    name: str
    fresh: bool
    seconds: float
    detail: str
    skipped: bool = False

    @property
    def took(self) -> str:
        """For a table."""
        if self.skipped:
            return "NOT DONE"
        return human_seconds(self.seconds) if self.fresh else "done before"


@dataclass
class ImageRun:
    """One image on its way: handed from stage to stage, each of which adds its result.

    `record` is what the plan has read; a stage that makes something replaces it here and on disk.
    Only one run works in a checkout at a time, so nobody else changes it meanwhile. `taken`: the
    build is another machine's, from the target.
    """

    image: Image
    record: ImageRecord
    steps: list[StageResult] = field(default_factory=list)
    failure: SlipwayError | None = None
    taken: bool = False

    @property
    def built(self) -> BuildRecord:
        """The build that the later stages work on."""
        assert self.record.built is not None
        return self.record.built

    @property
    def failure_line(self) -> str:
        """What a person is told at once when it fails; the whole of it stands at the end."""
        assert self.failure is not None
        first = self.failure.what.splitlines()[0].rstrip(":")
        return f"{self.image.name}: FAILED: {first}"

    def save(self, project: Project, **made: Any) -> None:
        """Record what a stage made, by the fields of ImageRecord."""
        self.record = dataclasses.replace(self.record, **made)
        save_record(project, self.image.name, self.record)

    def save_push(self, project: Project, target: str, pushed: PushedImage) -> PushRecord:
        """Record what a target has of the image now; gives the record."""
        record = PushRecord(
            self.built.image_id,
            pushed.uri,
            pushed.digest,
            pushed.media_type,
            pushed.size_bytes,
            pushed.seconds,
        )
        self.save(project, pushed={**self.record.pushed, target: record})
        return record


class PushedImage(Protocol):
    """What a push says of the image in the registry, whoever made the image."""

    @property
    def uri(self) -> str:
        """host/repository:tag."""

    @property
    def digest(self) -> str:
        """Of the manifest."""

    @property
    def media_type(self) -> str:
        """Of the manifest."""

    @property
    def size_bytes(self) -> int:
        """Compressed, with the base."""

    @property
    def seconds(self) -> float:
        """How long it took."""


def export_request(
    project: Project, run: ImageRun, settings: Settings, *, force: bool
) -> sqsh.ExportRequest:
    """The .sqsh of an image: a file whose name says which build it is."""
    build_id = run.built.build_id
    folder = settings.sqsh_dir or project.sqsh
    return sqsh.ExportRequest(
        folder / f"{run.image.name}-{build_id[:12]}.sqsh",
        build_id,
        sqsh.image_packing(project, run.image.name, settings.sqsh_options),
        force,
        own=settings.sqsh_dir is None,
    )
