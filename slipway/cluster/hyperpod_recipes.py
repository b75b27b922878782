"""The overrides of a run of aws/sagemaker-hyperpod-recipes, which has a launcher of its own. Pure.

Keys and defaults: that repository's recipes_collection/config.yaml, cluster/slurm.yaml and
recipes/training/llama/hf_llama3_2_1b_seq8k_gpu_p5x1_pretrain.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.cluster import launcher_tables, option_values, training_kinds
from slipway.cluster.slurm_job import CHECKS, MOST_NODES, ScriptRequest, job_name
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import UsageError
from slipway.matrix import Image

EXAMPLE = "training/llama/hf_llama3_2_1b_seq8k_gpu_p5x1_pretrain"
_RECIPE = re.compile(r"[\w./-]+", re.ASCII)
#: Filled in by the script itself, where the cluster has to be looked at first.
_SET_THERE = frozenset({"recipes", "container", "cluster.srun_args", "base_results_dir"})


@dataclass(frozen=True)
class RecipeRun:
    """The values of one script."""

    name: str
    image: str
    recipe: str
    nodes: int
    instance_type: str  # without "ml.", as the recipes spell it
    sqsh: SqshFile
    hash: bool
    overrides: tuple[str, ...]


def make_recipe_run(
    request: ScriptRequest, image: Image, sqsh: SqshFile, launcher: Path
) -> RecipeRun:
    """Check a request and derive the overrides; the user's own come last and win."""
    instance_type, instance = launcher_tables.find_instance_row(launcher, request.instance)
    training_kinds.check_device(image, instance_type, instance)
    training_kinds.choose_training_kind(request.flavour, image)
    _refuse(request)
    if not request.words:
        raise UsageError("there is no recipe", cure=f"Name one after --: ... -- {EXAMPLE}")
    recipe, *theirs = request.words
    if not _RECIPE.fullmatch(recipe):
        raise UsageError(f"{recipe!r} is no recipe: expected something like {EXAMPLE}")
    name = job_name(request.job_name or image.name)
    short = instance_type.removeprefix("ml.")
    nodes = option_values.whole_number(request.nodes, "--nodes", 1, MOST_NODES)
    ours = [
        "cluster=slurm",
        "cluster_type=slurm",
        f"instance_type={short}",
        f"recipes.run.name={name}",
        f"recipes.trainer.num_nodes={nodes}",
        f"recipes.trainer.devices={instance.gpus}",
    ]
    if not training_kinds.has_fp8(launcher_tables.instance_family(launcher, instance_type)):
        ours.append("recipes.model.fp8=False")
    if request.time:
        option_values.time_limit(request.time)
        ours.append(f"recipes.run.time_limit={request.time}".replace(":", r"\:"))
    if paths := [option_values.parse_mount(text) for text in request.mounts]:
        if any(mount.source != mount.target or mount.read_only for mount in paths):
            raise UsageError("the recipes mount a path only under its own name: --mount PATH")
        ours.append(f"cluster.container_mounts=[{','.join(mount.source for mount in paths)}]")
    for variable in map(option_values.parse_variable, request.env):
        if variable.value is None:
            raise UsageError(f"--env {variable.name}: the recipes need a value: NAME=VALUE")
        ours.append(f"+env_vars.{variable.name}={hydra_quoted(variable.value)}")
    return RecipeRun(
        name=name,
        image=image.name,
        recipe=recipe,
        nodes=nodes,
        instance_type=short,
        sqsh=sqsh,
        hash=request.check != "size",
        overrides=overridden_keys(ours, theirs),
    )


def overridden_keys(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, ...]:
    """Ours without those whose key is also among theirs, then theirs: Hydra takes a key once."""
    for text in theirs:
        if "=" not in text:
            raise UsageError(f"{text!r} is no override: expected KEY=VALUE")
        if _key(text) in _SET_THERE:
            raise UsageError(
                f"{text!r}: the script sets {_key(text)} itself",
                cure="The .sqsh is chosen with NAME or --sqsh, the recipe before the overrides.",
            )
    taken = {_key(text) for text in theirs}
    return tuple([text for text in ours if _key(text) not in taken] + list(theirs))


def hydra_quoted(value: str) -> str:
    """A value as a string of Hydra's override grammar."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _refuse(request: ScriptRequest) -> None:
    """The recipes' launcher writes the sbatch file, so most of our options have no meaning."""
    fresh = ScriptRequest(request.nodes, request.instance, request.words)
    for option in (
        *("runtime", "signal", "requeue", "spares", "keep", "fetch", "workdir", "launch"),
        *("sbatch", "srun"),
    ):
        if getattr(request, option) != getattr(fresh, option):
            raise UsageError(f"--{option} has no meaning for flavour recipes, which starts itself")
    option_values.one_of_values(request.check, "--check", CHECKS)
