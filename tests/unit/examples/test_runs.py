"""What the examples decide without torch: speeds, checkpoints to keep, checkpoints to load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from common import checkpoints, zero
from common.errors import ExampleError
from common.progress import Progress
from launcher.data.checkpoints import is_complete


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_counts_neither_checkpoints_nor_the_first_window() -> None:
    clock = Clock()
    progress = Progress(tokens=1000, world=2, flops_per_token=4e9, clock=clock)
    progress.start()
    progress.step()
    clock.now += 50  # compiles
    first = progress.close_window(3.0)
    assert first["tokens_per_s"] == 20.0
    for _ in range(4):
        progress.step()
        clock.now += 2
    began = clock()
    clock.now += 30  # a checkpoint
    assert progress.pause(began) == 30
    assert progress.close_window(2.0) == progress.speed()
    assert progress.speed() == {
        "step_s": 2.0,
        "tokens_per_s": 500.0,
        "tokens_per_s_per_rank": 250.0,
        "tflops_per_rank": 1.0,
    }
    assert progress.losses == [3.0, 2.0]


def test_a_run_of_one_window_has_its_speed_and_one_without_steps_has_none() -> None:
    clock = Clock()
    progress = Progress(tokens=10, world=1, clock=clock)
    progress.start()
    assert progress.speed() == {}
    progress.step()
    clock.now += 5
    progress.close_window(1.0)
    assert progress.speed()["tokens_per_s"] == 2.0


def test_old_checkpoints_are_those_before_the_newest_by_number(tmp_path: Path) -> None:
    for name in ("step-9", "step-10", "step-100", "step-x"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints.old(tmp_path, "step-*", 2)] == ["step-9"]
    assert checkpoints.old(tmp_path, "step-*", 3) == []


def test_a_checkpoint_that_is_being_deleted_is_no_longer_complete_to_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step-5"
    step.mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (step / name).write_text("x")
    assert [item.name for item in is_complete(tmp_path, "auto")] == ["step-5"]
    seen: list[list[Any]] = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda *_, **__: seen.append(is_complete(tmp_path, "auto"))
    )
    checkpoints.remove(step, ".metadata")
    assert seen == [[]]


def zero_checkpoint(root: Path, ranks: int) -> Path:
    """The names of DeepSpeed's files."""
    path = root / "global_step7"
    path.mkdir()
    for rank in range(ranks):
        (path / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
        (path / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").touch()
    return path


def test_a_zero_checkpoint_loads_at_the_number_of_ranks_that_wrote_it(tmp_path: Path) -> None:
    path = zero_checkpoint(tmp_path, 12)
    config: dict[str, Any] = {}
    assert zero.source(path, 12, config) == path
    assert config == {}


def test_at_another_number_of_ranks_its_universal_twin_is_loaded(tmp_path: Path) -> None:
    path = zero_checkpoint(tmp_path, 2)
    twin = tmp_path / "global_step7-universal"
    with pytest.raises(ExampleError, match="2 ranks, and this job has 4") as caught:
        zero.source(path, 4, {})
    assert f"--input_folder {path} --output_folder {twin}`" in str(caught.value)
    twin.mkdir()
    config: dict[str, Any] = {"checkpoint": {"use_node_local_storage": True}}
    assert zero.source(path, 4, config) == twin
    assert config["checkpoint"] == {"use_node_local_storage": True, "load_universal": True}


def test_what_is_no_zero_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="is no ZeRO checkpoint"):
        zero.source(tmp_path / "step-3", 2, {})


@pytest.mark.parametrize("text", [None, "{"])
def test_a_zero_configuration_that_cannot_be_read_is_named(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "zero.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExampleError, match=r"--zero-config .*zero\.json"):
        zero.read_config(path)
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert zero.read_config(path)["zero_optimization"]["stage"] == 3
