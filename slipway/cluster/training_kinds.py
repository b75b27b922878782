"""What kinds of training need beyond the launcher, each with its source. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway.cluster.option_values import JobVariable
from slipway.core import UsageError, did_you_mean
from slipway.matrix import Image

if TYPE_CHECKING:
    from launcher.instances import Instance

CLUSTER_LOGS = "/var/log/aws/clusters"
"""How SMP and SMDDP know a HyperPod node; mounted wherever a node has it."""


@dataclass(frozen=True)
class TrainingNeeds:
    """What a flavour adds to a job. `present` are folders that every node must have."""

    title: str
    env: tuple[JobVariable, ...] = ()
    present: tuple[str, ...] = ()


def _torchrun(_instance: Instance) -> TrainingNeeds:
    return TrainingNeeds("torchrun (DeepSpeed scripts, too)")


def _fsdp(instance: Instance) -> TrainingNeeds:
    # awslabs/awsome-distributed-training:3.test_cases/pytorch/FSDP/slurm. Workers that read data
    # are forked, and huge pages of libfabric then fail with "Cannot allocate memory"
    # (1.architectures/efa-cheatsheet.md).
    pages = (JobVariable("FI_EFA_USE_HUGE_PAGE", "0"),) if instance.efa else ()
    return TrainingNeeds("FSDP", (*pages, JobVariable("HF_HUB_ETAG_TIMEOUT", "60")))


def _smp(instance: Instance) -> TrainingNeeds:
    # awslabs/awsome-distributed-training, before its removal in #617:
    # 3.test_cases/17.SM-modelparallelv2/launch_training_enroot.sh and 11.modelparallel/scripts.
    # Without NVTE_TORCH_COMPILE=0 SMP crashes; outside of a HyperPod cluster it does not start.
    gpus = str(instance.gpus)
    return TrainingNeeds(
        "SMP v2",
        (
            JobVariable("NVTE_TORCH_COMPILE", "0"),
            JobVariable("CUDA_DEVICE_MAX_CONNECTIONS", "1"),
            JobVariable("SM_NUM_GPUS", gpus),
            JobVariable("GPU_NUM_DEVICES", gpus),
        ),
        present=(CLUSTER_LOGS,),
    )


FLAVOURS: dict[str, Callable[[Instance], TrainingNeeds]] = {
    "torchrun": _torchrun,
    "fsdp": _fsdp,
    "smp": _smp,
}
RECIPES = "recipes"
AUTO = "auto"


def choose_training_kind(flavour: str, image: Image) -> str:
    """Resolve "auto" by the image; UsageError for what is not known or does not go together."""
    known = (AUTO, *FLAVOURS, RECIPES)
    if flavour not in known:
        raise UsageError(
            f"no flavour {flavour!r}{did_you_mean(flavour, known)}",
            cure=f"One of {', '.join(known)}.",
        )
    has_smp = image.base.facts.smp is not None
    if flavour == AUTO:
        return "smp" if has_smp else "torchrun"
    if flavour in ("smp", RECIPES) and not has_smp:
        raise UsageError(
            f"flavour {flavour} needs an image with SMP, and {image.name} has none",
            cure="`./inv matrix 'smp-*'` lists those that have.",
        )
    return flavour


def check_device(image: Image, instance_type: str, instance: Instance) -> None:
    """Refuse CUDA images for a type without GPUs."""
    if image.base.facts.device == "gpu" and not instance.gpus:
        raise UsageError(f"{image.name} needs GPUs, and {instance_type} has Neuron chips instead")


def has_fp8(family: str) -> bool:
    """Whether SMP's FP8 runs on a family: Hopper GPUs and newer (AWS, SMP v2 documentation)."""
    return family.startswith(("p5", "p6"))
