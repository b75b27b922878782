"""The overrides of a HyperPod recipes run, and the script that hands them over."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slipway.cluster import ScriptRequest, hyperpod_recipes, script
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import UsageError, hash_chunks
from slipway.sqsh import sidecar
from slipway.sqsh.sidecar import Sidecar
from tests.support.cluster_samples import KNOWN, LAB, LAUNCHER, PYTORCH, image, request, run
from tests.support.cluster_shell import Shell

RECIPE = LAB.words[0]


def test_the_lab_on_four_g5_has_its_overrides() -> None:
    """4 x ml.g5.48xlarge instead of p5: TP 4, no FP8, synthetic data."""
    overrides = dict(text.split("=", 1) for text in run(LAB).overrides)
    assert overrides == {
        "cluster": "slurm",
        "cluster_type": "slurm",
        "instance_type": "g5.48xlarge",
        "recipes.run.name": "smp-2.4-hyperpod",
        "recipes.trainer.num_nodes": "4",
        "recipes.trainer.devices": "8",
        "recipes.model.fp8": "False",
        "cluster.container_mounts": "[/fsx]",
        "recipes.model.tensor_model_parallel_degree": "4",
        "recipes.model.data.use_synthetic_data": "True",
    }


def test_fp8_is_left_to_the_recipe_on_hopper() -> None:
    made = run(request(RECIPE, flavour="recipes"))
    assert not any("fp8" in override for override in made.overrides)


def test_the_users_override_is_the_only_one_of_its_key() -> None:
    mine = ("recipes.model.fp8=True", "recipes.trainer.num_nodes=2")
    made = run(request(RECIPE, *mine, instance="ml.g5.48xlarge", nodes="4", flavour="recipes"))
    assert made.overrides[-2:] == mine
    keys = [text.partition("=")[0] for text in made.overrides]
    assert len({*keys}) == len(keys)


def test_values_are_quoted_for_hydra() -> None:
    asked = request(RECIPE, flavour="recipes", env=("A=it's, [b]",), time="2-12:00:00")
    overrides = run(asked).overrides
    assert r"+env_vars.A='it\'s, [b]'" in overrides
    assert r"recipes.run.time_limit=2-12\:00\:00" in overrides


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (request(flavour="recipes"), "there is no recipe"),
        (request("a b", flavour="recipes"), "is no recipe"),
        (request(RECIPE, "fp8", flavour="recipes"), "expected KEY=VALUE"),
        (request(RECIPE, "container=x", flavour="recipes"), "the script sets container itself"),
        (request(RECIPE, "+cluster.srun_args=[]", flavour="recipes"), "sets cluster.srun_args"),
        (request(RECIPE, flavour="recipes", runtime="enroot"), "--runtime has no meaning"),
        (request(RECIPE, flavour="recipes", requeue="2"), "--requeue has no meaning"),
        (request(RECIPE, flavour="recipes", launch=("grace=1",)), "--launch has no meaning"),
        (request(RECIPE, flavour="recipes", mounts=("/a:/b",)), "only under its own name"),
        (request(RECIPE, flavour="recipes", env=("A",)), "the recipes need a value"),
    ],
)
def test_what_the_recipes_cannot_do_is_refused(asked: ScriptRequest, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(asked)
    assert told in str(caught.value)


def test_an_image_without_smp_is_refused() -> None:
    with pytest.raises(UsageError, match="needs an image with SMP"):
        hyperpod_recipes.make_recipe_run(LAB, image(PYTORCH), KNOWN, LAUNCHER)


@pytest.mark.parametrize("hyperpod", [True, False])
def test_the_recipes_main_gets_every_override(tmp_path: Path, hyperpod: bool) -> None:
    shell = Shell(tmp_path)
    path = tmp_path / "image.sqsh"
    path.write_bytes(b"abc")
    whole = Sidecar("r", "sha256:1", (), "b", hash_chunks(path.read_bytes()), 1, {}, "1")
    sidecar.write_sidecar(path, whole)
    made = run(LAB, sqsh=SqshFile(str(path), whole.size, whole.digest))
    text = script.render_recipe(made)
    if hyperpod:
        text = text.replace("/opt/sagemaker_cluster", str(shell.work))
    assert "is no checkout" in shell.run(text, job=False).said
    (shell.work / "main.py").touch()
    shell.put("python3", '#!/bin/bash\nprintf \'%s\\0\' "$@" >"$RECORD/0-python3"\n')
    done = shell.run(text, job=False)
    assert done.code == 0, done.said
    ((main, recipe, container, results, arguments, *overrides),) = done.called("python3")
    assert (main, recipe) == ("main.py", f"recipes={RECIPE}")
    assert container == f"container={path}"
    assert results == f"base_results_dir={shell.work}/results"
    resume = ",'--auto-resume=1'" if hyperpod else ""
    assert arguments == f"cluster.srun_args=['--no-container-mount-home'{resume}]"
    assert tuple(overrides) == made.overrides
    path.write_bytes(b"abX")
    done = shell.run(text, job=False)
    assert (done.code, done.called("python3")) == (1, [])
    assert "copy it again" in done.said


def test_the_script_is_sound_for_a_sqsh_of_which_nothing_is_known() -> None:
    text = script.render_recipe(run(LAB, sqsh=SqshFile("/fsx/x.sqsh")))
    assert subprocess.run(["bash", "-n"], input=text.encode(), capture_output=True).stderr == b""
