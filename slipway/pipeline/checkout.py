"""From configuration to values: what every task starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.core import Project, UsageError, say, write_atomic
from slipway.derive import (
    BuildInputs,
    PlanStep,
    build_inputs,
    generated_dockerfiles,
    is_locked,
    plan_steps,
    render_dockerfile,
    shared_inputs,
)
from slipway.local_base import local_base_id
from slipway.matrix import Image, Matrix, image_depth, images_below, read_matrix, select_images
from slipway.records import ImageRecord, Locks, base_lock_key, load_locks, load_record


@dataclass(frozen=True)
class Checkout:
    """The checkout with all that is pure loaded: enough to plan, not to build."""

    project: Project
    matrix: Matrix
    locks: Locks

    @classmethod
    def at(cls, root: Path) -> Checkout:
        """Load versions.yaml and images/lock; raises BadInputError with every error found."""
        project = Project.at(root)
        return cls(project, read_matrix(project), load_locks(project))

    def chosen(self, names: Sequence[str]) -> tuple[Image, ...]:
        """The images that a doing task works on: those named, else the default image."""
        return select_images(self.matrix, names or [self.matrix.default_image])

    def write_dockerfiles(self, images: Sequence[Image]) -> None:
        """Write the Dockerfiles of these images where they differ from what the matrix gives."""
        texts = generated_dockerfiles(self.project, self.matrix, self.locks, images)
        for path, text in sorted(texts.items()):
            if not path.exists() or path.read_text() != text:
                write_atomic(path, text)
                say(f"wrote {path.relative_to(self.project.root)}")

    def inputs(self, images: Sequence[Image]) -> dict[str, BuildInputs]:
        """What decides the content of each image."""
        below = images_below(images)
        common = shared_inputs(self.project, self.locks, (*below, *images))
        own = {i.base.name: i.base for i in (*below, *images) if i.base.registry is None}
        own_ids = {
            name: local_base_id(self.project, base, self.locks.python.get(base_lock_key(base)))
            for name, base in own.items()
            if base.image is None
        }
        inputs: dict[str, BuildInputs] = {}
        for image in sorted((*below, *images), key=image_depth):  # the build id of what is below
            under = image.base.image
            own_base = inputs[under.name].build_id if under else own_ids.get(image.base.name)
            inputs[image.name] = build_inputs(
                self.project, image, self.locks, self.matrix.tools.values(), common, own_base
            )
        return {image.name: inputs[image.name] for image in images}

    def dockerfile(self, image: Image) -> str:
        """The Dockerfile that the matrix and the locks give an image now."""
        return render_dockerfile(
            image, self.locks, self.matrix.tools.values(), self.project.templates
        )

    def build_id_of(self, image: Image) -> str:
        """The build id that the matrix and the locks give an image now."""
        return self.inputs([image])[image.name].build_id

    def records(self, images: Sequence[Image]) -> dict[str, ImageRecord]:
        """What was made of each image so far."""
        return {image.name: load_record(self.project, image.name) for image in images}

    def plan(
        self,
        images: Sequence[Image],
        inputs: Mapping[str, BuildInputs],
        records: Mapping[str, ImageRecord],
        today: date,
    ) -> tuple[PlanStep, ...]:
        """One step an image."""
        return plan_steps(images, inputs, records, self.locks.bases, today)


def require_locked(images: Sequence[Image], inputs: Mapping[str, BuildInputs]) -> None:
    """Refuse images whose base or requirements are not pinned; raises UsageError naming them."""
    open_ones = [image.name for image in images if not is_locked(inputs[image.name])]
    if open_ones:
        raise UsageError(
            f"not everything is pinned for {', '.join(open_ones[:5])}"
            + (f" and {len(open_ones) - 5} more" if len(open_ones) > 5 else ""),
            cure="Run `./inv lock` where the registries can be reached, or build with --unlocked.",
        )
