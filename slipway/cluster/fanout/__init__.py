"""One `inv ship` an image on many machines: on Slurm, in CodeBuild, in GitHub's runners.

In come the images and the flags of `inv ship`; out comes one table. Who starts machines is the
engine that users have; nothing here schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.fanout.codebuild_batches import run_codebuild_fanout, stop_batch
    from slipway.cluster.fanout.codebuild_documents import CodeBuildOptions
    from slipway.cluster.fanout.fanout_plan import (
        PlannedImage,
        ShipFlags,
        group_images,
        plan_fanout,
    )
    from slipway.cluster.fanout.github_runs import (
        WorkflowOptions,
        run_github_fanout,
        show_collected_results,
    )
    from slipway.cluster.fanout.image_results import ImageResult
    from slipway.cluster.fanout.slurm_array import (
        ArrayOptions,
        read_fanout_run,
        run_slurm_fanout,
        show_fanout_run,
        work_on_run,
    )

__all__ = [
    "ArrayOptions",
    "CodeBuildOptions",
    "ImageResult",
    "PlannedImage",
    "ShipFlags",
    "WorkflowOptions",
    "group_images",
    "plan_fanout",
    "read_fanout_run",
    "run_codebuild_fanout",
    "run_github_fanout",
    "run_slurm_fanout",
    "show_collected_results",
    "show_fanout_run",
    "stop_batch",
    "work_on_run",
]

__getattr__ = lazy_face(
    __name__,
    {
        "codebuild_batches": "run_codebuild_fanout stop_batch",
        "codebuild_documents": "CodeBuildOptions",
        "fanout_plan": "PlannedImage ShipFlags plan_fanout group_images",
        "github_runs": "WorkflowOptions run_github_fanout show_collected_results",
        "image_results": "ImageResult",
        "slurm_array": "ArrayOptions read_fanout_run run_slurm_fanout show_fanout_run work_on_run",
    },
)
