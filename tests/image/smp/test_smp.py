from __future__ import annotations

from slipway.verify.plugin import RunPython


def test_the_model_parallel_library_can_be_imported(run_python: RunPython) -> None:
    # SMP v2's API: AWS guide, "SageMaker model parallelism library v2 reference".
    run_python("import torch.sagemaker")
