from __future__ import annotations

from slipway.verify.plugin import RunPython


def test_a_cpu_operator_compiles_in_spite_of_the_cuda_mismatch(run_python: RunPython) -> None:
    # DS_SKIP_CUDA_CHECK lets it: deepspeedai/DeepSpeed:op_builder/builder.py.
    code = """
from deepspeed.ops.op_builder import CPUAdamBuilder
CPUAdamBuilder().load()
print("COMPILED")
"""
    assert "COMPILED" in run_python(code)
