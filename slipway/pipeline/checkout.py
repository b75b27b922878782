"""From configuration to values: what every task starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.core.paths import Project
from slipway.derive.build_id import BuildInputs, build_inputs, shared_inputs
from slipway.derive.plan import PlanStep, plan_steps
from slipway.local_base.base_image import local_base_id
from slipway.matrix.load import load_matrix
from slipway.matrix.model import Image, Matrix
from slipway.records import builds
from slipway.records.lock_files import load_locks
from slipway.records.locks import Locks


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
        return cls(project, load_matrix(project.versions), load_locks(project))

    def inputs(self, images: Sequence[Image]) -> dict[str, BuildInputs]:
        """What decides the content of each image."""
        common = shared_inputs(self.project)
        tools = tuple(self.matrix.tools.values())
        own = {i.base.name: i.base for i in images if i.base.registry is None}
        local_ids = {name: local_base_id(self.project, base) for name, base in own.items()}
        return {
            image.name: build_inputs(
                self.project, image, self.locks, tools, common, local_ids.get(image.base.name)
            )
            for image in images
        }

    def plan(
        self, images: Sequence[Image], decided: Mapping[str, BuildInputs], today: date
    ) -> tuple[PlanStep, ...]:
        """One step an image."""
        made = {image.name: builds.load_record(self.project, image.name) for image in images}
        return plan_steps(images, decided, made, self.locks.bases, today)
