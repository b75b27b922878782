"""One table of GPU instance types: for the launcher, the Slurm scripts and the preflight.

No imports beyond the standard library, so that other tools may load this file by its path.
GPU and EFA counts: aws/sagemaker-hyperpod-recipes:launcher/efa.py and its instance tables.
p6-b200: awslabs/awsome-distributed-training:
4.validation_and_observability/2.gpu-cluster-healthcheck/README.md. Neither names the EFA count of
p6-b300 and p6e-gb200: None, not checked.

Floors have to pass every healthy machine, so they lie a fifth below the slowest one measured
(docs/lab/gpu.md), and find what costs more than that: NVLink lost for host memory (31 GB/s
instead of 353), a GPU held at low clocks.

All-reduce: the slowest were two H200s alone, NVLS off, with 326 GB/s, 72 % of the 450 GB/s that
their NVLinks move in one direction. A floor is 80 % of that share of a type's line rate (300 GB/s
A100, 450 H100 and H200, 900 B200), rounded down. nccl-tests finds 231 on p4d (NVIDIA/nccl#527),
370 without and 480 with NVLS on 8 H100s (NVIDIA/nccl-tests#212): the 500 of the health check named
above would fail every p5.

GEMM: 80 % of the lowest of the H100s and H200s measured, 752, rounded down. No others were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Instance:
    """What a type has. `efa` is its count of EFA interfaces (None: not known).

    `rdma` says whether EFA reads and writes GPU memory directly. The floors are what the full
    preflight calls unfit below, 0 where there is no figure: `nvlink_floor` the bus bandwidth of
    an all-reduce inside one node in GB/s, `gemm_floor` what a bf16
    product sustains on each GPU in TFLOP/s.
    """

    gpus: int
    efa: int | None
    rdma: bool = False
    nvlink_floor: int = 0
    gemm_floor: int = 0


_P4 = Instance(8, 4, rdma=True, nvlink_floor=170)
_P5 = Instance(8, 32, rdma=True, nvlink_floor=260, gemm_floor=540)

INSTANCES: dict[str, Instance] = {
    "p4d.24xlarge": _P4,
    "p4de.24xlarge": _P4,
    "p5.48xlarge": _P5,
    "p5e.48xlarge": _P5,
    "p5en.48xlarge": replace(_P5, efa=16),
    "p6-b200.48xlarge": Instance(8, 8, rdma=True, nvlink_floor=520),
    "p6-b300.48xlarge": Instance(8, None, rdma=True),
    "p6e-gb200.36xlarge": Instance(4, None, rdma=True),
    "g4dn.8xlarge": Instance(1, 1),
    "g4dn.12xlarge": Instance(4, 1),
    "g4dn.16xlarge": Instance(1, 1),
    "g5.8xlarge": Instance(1, 1),
    "g5.12xlarge": Instance(4, 1),
    "g5.16xlarge": Instance(1, 1),
    "g5.24xlarge": Instance(4, 1),
    "g5.48xlarge": Instance(8, 1),
    "g6.8xlarge": Instance(1, 1),
    "g6.12xlarge": Instance(4, 1),
    "g6.16xlarge": Instance(1, 1),
    "g6.24xlarge": Instance(4, 1),
    "g6.48xlarge": Instance(8, 1),
    "g6e.24xlarge": Instance(4, 2),
    "g6e.48xlarge": Instance(8, 4),
    **{
        f"{family}.{size}": Instance(1, 0)
        for family in ("g4dn", "g5", "g6", "g6e")
        for size in ("xlarge", "2xlarge", "4xlarge")
    },
    # Neuron chips, not GPUs; one EFA interface per chip pair or chip.
    "trn1.32xlarge": Instance(0, 8, rdma=True),
    "trn1n.32xlarge": Instance(0, 16, rdma=True),
    "trn2.48xlarge": Instance(0, 16, rdma=True),
}


def short_type(instance_type: str) -> str:
    """The EC2 name of a SageMaker type: ``ml.p5.48xlarge`` is a p5.48xlarge."""
    return instance_type[3:] if instance_type.startswith("ml.") else instance_type


def find_instance(instance_type: str) -> Instance | None:
    """The type's row; None for a type that is not in the table."""
    return INSTANCES.get(short_type(instance_type))


def instance_family(instance_type: str) -> str:
    """``ml.g5.48xlarge`` -> g5."""
    return short_type(instance_type).partition(".")[0]
