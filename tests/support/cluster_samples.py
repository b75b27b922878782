"""Files of clusters; requests for scripts, from the real matrix and the launcher's own tables."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from slipway.cluster import ScriptRequest, hyperpod_recipes, script, slurm_job
from slipway.cluster.hyperpod_recipes import RecipeRun
from slipway.cluster.slurm_job import SlurmJob
from slipway.cluster.sqsh_file import SqshFile
from slipway.matrix import Image, load_matrix

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "entrypoints"
PYTORCH = "pytorch-2.13-hyperpod-ds0.19.8"
SMP = "smp-2.4-hyperpod"
LOCAL = "local-hyperpod-ds0.19.8"
P5 = "ml.p5.48xlarge"
KNOWN = SqshFile(f"/fsx/images/{PYTORCH}-0123456789ab.sqsh", 9_876_543_210, "ab" * 32)
#: Files of clusters: all that may be left out is left out here, and in the large one nothing is.
SMALL_CLUSTER = """\
name: train
region: us-west-2
account: "111122223333"
zone: usw2-az2
controller: ml.c5.xlarge
groups:
  workers: {instance: ml.p5.48xlarge, count: 4}
"""
#: The small one in moto's own account and region.
MOTO_CLUSTER = """\
name: train
region: us-east-1
account: "123456789012"
zone: use1-az4
controller: ml.c5.xlarge
groups:
  workers: {instance: ml.g5.48xlarge, count: 2}
"""
LARGE_CLUSTER = """\
name: train
region: us-gov-west-1
account: "111122223333"
zone: usgw1-az1
controller: ml.m5.4xlarge
login: ml.m5.2xlarge
groups:
  big:
    instance: ml.p5en.48xlarge
    count: 16
    partition: gpu
    volume_gb: 1000
    threads_per_core: 1
    training_plan: arn:aws-us-gov:sagemaker:us-gov-west-1:111122223333:training-plan/p5en
    health_checks: [InstanceStress, InstanceConnectivity]
  small: {instance: ml.g5.8xlarge, count: 2}
network: {subnet: subnet-0123456789abcdef0, security_group: sg-0123456789abcdef0}
storage: {file_system: fs-0123456789abcdef0, mount_name: abcdefgh}
strategy: Merge
recovery: None
image_version: 1.2.3
repositories: [team/*, shared]
builds: true
buckets: [train-data]
consumers: ["444455556666"]
prices: {ml.p5en.48xlarge: 84.8, ml.g5.8xlarge: 3}
"""


@functools.cache
def _images() -> dict[str, Image]:
    return {image.name: image for image in load_matrix(ROOT / "versions.yaml").images}


def image(name: str) -> Image:
    return _images()[name]


def request(
    *words: str, nodes: str = "2", instance: str = P5, **options: str | tuple[str, ...]
) -> ScriptRequest:
    return ScriptRequest(nodes=nodes, instance=instance, words=words, **options)  # type: ignore[arg-type]


def make(asked: ScriptRequest, name: str = PYTORCH, sqsh: SqshFile = KNOWN) -> SlurmJob:
    return slurm_job.make_slurm_job(asked, image(name), sqsh, LAUNCHER)


def run(asked: ScriptRequest, name: str = SMP, sqsh: SqshFile = KNOWN) -> RecipeRun:
    return hyperpod_recipes.make_recipe_run(asked, image(name), sqsh, LAUNCHER)


def without_program(job: SlurmJob) -> SlurmJob:
    """The program for nodes is a test's of its own: it changes with each of its modules."""
    assert job.fetch is not None
    return replace(job, fetch=replace(job.fetch, program=("THE", "PROGRAM")))


LAB = request(
    "training/llama/hf_llama3_2_1b_seq8k_gpu_p5x1_pretrain",
    "recipes.model.tensor_model_parallel_degree=4",
    "recipes.model.data.use_synthetic_data=True",
    nodes="4",
    instance="ml.g5.48xlarge",
    flavour="recipes",
    mounts=("/fsx",),
)

#: What golden/slurm/ holds, by file name.
GOLDEN = {
    "torchrun-p5.sbatch": lambda: script.render_sbatch(
        make(request("train.py", "--epochs", "3", "--name", "two words", nodes="4"))
    ),
    "deepspeed-p4de-enroot.sbatch": lambda: script.render_sbatch(
        make(
            request(
                "train.py",
                "--deepspeed",
                "ds_z3.json",
                instance="ml.p4de.24xlarge",
                runtime="enroot",
                launch=("runner=deepspeed",),
                env=("NCCL_DEBUG=WARN", "HF_TOKEN"),
                mounts=("/fsx/data:/data:ro",),
            )
        )
    ),
    "fsdp-p5en.sbatch": lambda: script.render_sbatch(
        make(
            request(
                "fsdp.py",
                instance="p5en.48xlarge",
                nodes="16",
                flavour="fsdp",
                time="2-00:00:00",
                signal="600",
                requeue="5",
                workdir="/fsx/fsdp",
                mounts=("/fsx/data:/data:ro", "/fsx/checkpoints"),
                launch=("checkpoint-dir=/fsx/checkpoints", "resume=auto"),
                sbatch=("partition=p5", "gres=gpu:8"),
                srun=("mpi=pmix",),
                check="nodes",
            )
        )
    ),
    "fsdp-g5-without-efa.sbatch": lambda: script.render_sbatch(
        make(
            request("fsdp.py", instance="ml.g5.4xlarge", flavour="fsdp", check="size"),
            sqsh=SqshFile("/fsx/images/any.sqsh"),
        )
    ),
    "fetch-p5.sbatch": lambda: script.render_sbatch(
        without_program(
            make(
                request(
                    "train.py",
                    nodes="16",
                    fetch="registry://123456789012.dkr.ecr.us-west-2.amazonaws.com/train/x:1-ab",
                )
            )
        )
    ),
    "fetch-sbcast-g5.sbatch": lambda: script.render_sbatch(
        make(
            request(
                "fsdp.py",
                instance="ml.g5.4xlarge",
                flavour="fsdp",
                fetch="sbcast",
                fetch_to="/scratch/images",
            ),
            sqsh=SqshFile("/fsx/images/any.sqsh"),
        )
    ),
    "spares-p5.sbatch": lambda: script.render_sbatch(
        make(
            request(
                "train.py",
                nodes="5",
                spares="1",
                requeue="2",
                launch=("checkpoint-dir=/fsx/checkpoints", "resume=auto"),
                mounts=("/fsx/checkpoints",),
            )
        )
    ),
    "spares-p4de-enroot.sbatch": lambda: script.render_sbatch(
        make(
            request(
                "train.py",
                nodes="4",
                spares="2",
                instance="ml.p4de.24xlarge",
                runtime="enroot",
                launch=("max-restarts=20", "on-hang=report"),
            )
        )
    ),
    "smp-p5.sbatch": lambda: script.render_sbatch(
        make(request("train_external.py", "--fp8", "1", nodes="8"), SMP)
    ),
    "recipes-lab-g5.sh": lambda: script.render_recipe(run(LAB)),
}
