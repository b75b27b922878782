from __future__ import annotations

import pytest
from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage


@pytest.mark.gpu
def test_torch_computes_on_a_gpu(gpu_host: Host, subject: CheckedImage) -> None:
    code = "import torch; print((torch.ones(2, 3).cuda() @ torch.ones(3, 2).cuda()).sum().item())"
    done = gpu_host.backend.run_words(subject.python, "-c", code)
    assert done.rc == 0, done.stderr
    assert done.stdout.strip() == "12.0"


@pytest.mark.gpu
def test_nccl_reduces_on_every_gpu(gpu_host: Host, subject: CheckedImage) -> None:
    code = """
import torch
count = torch.cuda.device_count()
parts = [torch.full((4,), float(i + 1), device=f"cuda:{i}") for i in range(count)]
torch.cuda.nccl.all_reduce(parts)
assert all(part[0].item() == count * (count + 1) / 2 for part in parts), parts
"""
    done = gpu_host.backend.run_words(subject.python, "-c", code)
    assert done.rc == 0, done.stderr
