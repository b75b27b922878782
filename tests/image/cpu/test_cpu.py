from __future__ import annotations

from slipway.verify.plugin import RunPython


def test_torch_is_a_cpu_build_and_computes(run_python: RunPython) -> None:
    code = """
import torch
assert torch.version.cuda is None, torch.version.cuda
assert not torch.cuda.is_available()
product = torch.ones(2, 3) @ torch.ones(3, 2)
print(product.sum().item())
"""
    assert run_python(code) == "12.0"
