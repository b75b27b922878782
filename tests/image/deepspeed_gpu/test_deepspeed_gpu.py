from __future__ import annotations

from slipway.engine import Engine
from slipway.verify import check_containers
from slipway.verify.expectations import CheckedImage


def test_the_kernel_of_fused_adam_compiles_with_the_toolkit_of_the_image(
    engine: Engine, container: str, subject: CheckedImage
) -> None:
    # The first step of a training with FusedAdam compiles it, on every node, before it trains.
    cuda_home = subject.cell["base"]["family"]["cuda_home"]
    done = check_containers.probe_container(
        engine, container, subject.python, "fused_adam", cuda_home
    )
    lacks = ", ".join(done["missing"])
    assert not lacks, f"{cuda_home} lacks {lacks}: the toolkit's -dev packages bring them"
    assert done["output"] == ""
