"""`launch sagemaker` gives scripts what the real sagemaker-training gives them.

A sample of what `python -m bench.toolkit_differential` runs at length, and the cases that were
found to differ once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Project
from tests.support.launcher.toolkit_differential import (
    Differential,
    JobConfig,
    differential,
    generate_config,
)

VERSION = "5.1.4"


@pytest.fixture(scope="session")
def toolkit_python(shared_project: Project) -> Path:
    """A Python with sagemaker-training, in a venv of its own in the tests' state."""
    home = shared_project.state / f"sagemaker-training-{VERSION}"
    python, whole = home / "bin" / "python", home / "whole"
    if not whole.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, home], check=True)
        package = f"sagemaker-training=={VERSION}"
        subprocess.run([*uv, "pip", "install", "--python", python, package], check=True)
        whole.touch()
    return python


@pytest.fixture(scope="module")
def both(toolkit_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Differential]:
    with differential(tmp_path_factory.mktemp("differential"), toolkit_python) as made:
        yield made


@pytest.mark.parametrize("seed", range(12))
def test_generated_jobs_are_alike(both: Differential, seed: int) -> None:
    assert both.compare(generate_config(seed)) == []


ONE: dict[str, Any] = {
    "current_host": "algo-1",
    "hosts": ["algo-1"],
    "network_interface_name": "eth0",
}
GROUPS: dict[str, Any] = {
    "current_host": "algo-3",
    "hosts": ["algo-1", "algo-2", "algo-3"],
    "current_group_name": "data",
    "instance_groups": [
        {"instance_group_name": "train", "instance_type": "ml.p5", "hosts": ["algo-1", "algo-2"]},
        {"instance_group_name": "data", "instance_type": "ml.c5", "hosts": ["algo-3"]},
    ],
    "topology": [{"hostName": "algo-1", "capacityUnitId": "u"}],
}
PROGRAM = {"sagemaker_program": '"train.py"'}
TUNING = {**PROGRAM, "_tuning_objective_metric": "loss", "sagemaker_region": '"r"', "lr": "0.1"}
TORCH = {"sagemaker_torch_distributed_enabled": "true"}
CASES: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, str]]] = {
    "a-tuning-job": ({**TUNING, "sagemaker_job_name": '"j"'}, ONE, {}),
    "outside-of-the-group": (
        {**PROGRAM, "sagemaker_distribution_instance_groups": '["train"]'}, GROUPS, {}),
    "the-own-group": ({**PROGRAM, **TORCH}, GROUPS, {}),
    "local-mode": (PROGRAM, {"current_host": "a", "hosts": ["a"]}, {}),
    "large": ({**PROGRAM, "big": json.dumps("x" * 110_000)}, ONE, {}),
    "stale-failure": (PROGRAM, ONE, {"output/failure": "earlier"}),
    "requirements": (PROGRAM, ONE, {"code/requirements.txt": "./no-such-directory\n"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_once_differed_is_alike(both: Differential, name: str) -> None:
    hyper, resources, files = CASES[name]
    channels: dict[str, Any] = {"training": {"TrainingInputMode": "File"}}
    assert both.compare(JobConfig(name, hyper, resources, channels, files=files)) == []


@pytest.mark.parametrize("script", ["start", "run.sh"])
def test_scripts_that_are_no_python_are_alike(both: Differential, script: str) -> None:
    hyper = {"sagemaker_program": json.dumps(script), "text": '"a b; $(id)"'}
    assert both.compare(JobConfig(f"program-{script}", hyper, ONE, {}, script)) == []
