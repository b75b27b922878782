"""From configuration to values: what every task starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.core import Project
from slipway.derive import BuildInputs, PlanStep, build_inputs, plan_steps, shared_inputs
from slipway.local_base import local_base_id
from slipway.matrix import Image, Matrix, read_matrix
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

    def inputs(self, images: Sequence[Image]) -> dict[str, BuildInputs]:
        """What decides the content of each image."""
        common = shared_inputs(self.project, self.locks, images)
        tools = tuple(self.matrix.tools.values())
        own = {i.base.name: i.base for i in images if i.base.registry is None}
        local_ids = {
            name: local_base_id(self.project, base, self.locks.python.get(base_lock_key(base)))
            for name, base in own.items()
        }
        return {
            image.name: build_inputs(
                self.project, image, self.locks, tools, common, local_ids.get(image.base.name)
            )
            for image in images
        }

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
