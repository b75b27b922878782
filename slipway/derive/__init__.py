"""What follows from matrix and records: Dockerfiles, build ids, the plan, generated tables.

Pure functions; the one thing written are the generated files of the checkout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.derive.build_id import (
        UNLOCKED,
        BuildInputs,
        SharedInputs,
        build_inputs,
        layer_keys,
        shared_inputs,
    )
    from slipway.derive.dockerfile import environment_of, labels_of, render_dockerfile
    from slipway.derive.generate import (
        expected_files,
        find_drift,
        generated_dockerfiles,
        write_generated,
    )
    from slipway.derive.launcher_layer import LauncherFile, launcher_files
    from slipway.derive.plan import (
        DiskNeed,
        Note,
        PlanStep,
        build_reasons,
        disk_need,
        grouped_notes,
        is_locked,
        plan_steps,
    )
    from slipway.derive.repository_files import AddedFile, added_files
    from slipway.derive.tables import ci_jobs, describe_image, describe_reference, table_rows

__all__ = [
    "UNLOCKED",
    "AddedFile",
    "BuildInputs",
    "DiskNeed",
    "LauncherFile",
    "Note",
    "PlanStep",
    "SharedInputs",
    "added_files",
    "build_inputs",
    "build_reasons",
    "ci_jobs",
    "describe_image",
    "describe_reference",
    "disk_need",
    "environment_of",
    "expected_files",
    "find_drift",
    "generated_dockerfiles",
    "grouped_notes",
    "is_locked",
    "labels_of",
    "launcher_files",
    "layer_keys",
    "plan_steps",
    "render_dockerfile",
    "shared_inputs",
    "table_rows",
    "write_generated",
]

__getattr__ = lazy_face(
    __name__,
    {
        "repository_files": "AddedFile added_files",
        "build_id": "BuildInputs SharedInputs UNLOCKED build_inputs layer_keys shared_inputs",
        "dockerfile": "environment_of labels_of render_dockerfile",
        "generate": "expected_files find_drift generated_dockerfiles write_generated",
        "launcher_layer": "LauncherFile launcher_files",
        "plan": "DiskNeed Note PlanStep build_reasons disk_need grouped_notes is_locked plan_steps",
        "tables": "ci_jobs describe_image describe_reference table_rows",
    },
)
