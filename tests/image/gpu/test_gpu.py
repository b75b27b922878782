from __future__ import annotations

import re

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage


def test_the_cuda_toolkit_is_the_one_that_is_stated(host: Host, subject: CheckedImage) -> None:
    home = subject.cell["base"]["family"]["cuda_home"]
    assert host.file(f"{home}/bin/nvcc").exists
    shown = host.run("%s --version", f"{home}/bin/nvcc").stdout
    release = re.search(r"release (\d+\.\d+)", shown)
    assert release, shown
    assert release[1] == subject.facts["cuda"]


def test_cuda_home_is_as_stated(host: Host, subject: CheckedImage) -> None:
    found = host.environment().get("CUDA_HOME", "").rstrip("/")
    assert found in ("", subject.cell["base"]["family"]["cuda_home"])
