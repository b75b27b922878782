#!/bin/bash
# smp-2.4-hyperpod on 4 x ml.g5.48xlarge: the HyperPod recipe
# training/llama/hf_llama3_2_1b_seq8k_gpu_p5x1_pretrain.
# Written by `./inv slurm.script`. Run it with bash, on the head node, in a checkout of
# aws/sagemaker-hyperpod-recipes (or name that in SAGEMAKER_TRAINING_LAUNCHER_DIR): the recipes'
# launcher writes the sbatch file and submits it.

set -euo pipefail

fail() {
    echo "smp-2.4-hyperpod: $*" >&2
    exit 1
}

launcher=${SAGEMAKER_TRAINING_LAUNCHER_DIR:-$PWD}
[[ -f $launcher/main.py ]] || fail "$launcher is no checkout of aws/sagemaker-hyperpod-recipes"

sqsh=/fsx/images/pytorch-2.13-hyperpod-ds0.19.8-0123456789ab.sqsh
sqsh_size=9876543210
sqsh_sha256=abababababababababababababababababababababababababababababababab

# FILE, bytes, sha256, whether to hash it. A file is hashed once: FILE.checked remembers it.
# shellcheck disable=SC2329 # may be called on other nodes only
check_sqsh() {
    local place=${SLURMD_NODENAME-${HOSTNAME-}} found mark
    if [[ ! -f $1 || ! -r $1 ]]; then
        echo "$place: $1 is not there, or not readable" >&2
        return 1
    fi
    found=$(stat --dereference --format=%s "$1")
    if [[ $found != "$2" ]]; then
        echo "$place: $1 has $found bytes, and its export had $2: copy it again" >&2
        return 1
    fi
    mark="$3 $(stat --dereference --format='%i %s %y' "$1")"
    if [[ $4 == no || $(cat "$1.checked" 2>/dev/null) == "$mark" ]]; then
        return 0
    fi
    if ! found=$(sha256sum <"$1"); then
        echo "$place: $1 could not be read to its end" >&2
        return 1
    fi
    if [[ ${found%% *} != "$3" ]]; then
        echo "$place: $1 has the sha256 ${found%% *}, and its export had $3: copy it again" >&2
        return 1
    fi
    # Where this folder cannot be written to, the next job hashes again.
    { echo "$mark" >"$1.checked"; } 2>/dev/null || true
}

check_sqsh "$sqsh" "$sqsh_size" "$sqsh_sha256" yes || exit 1

# The recipes' own default adds --auto-resume=1 on every cluster, and only HyperPod's srun knows it.
srun_args="'--no-container-mount-home'"
if [[ -d /opt/sagemaker_cluster ]]; then
    srun_args+=",'--auto-resume=1'"
fi

overrides=(
    "recipes=training/llama/hf_llama3_2_1b_seq8k_gpu_p5x1_pretrain"
    "container=$sqsh"
    "base_results_dir=$launcher/results"
    "cluster.srun_args=[$srun_args]"
    cluster=slurm
    cluster_type=slurm
    instance_type=g5.48xlarge
    recipes.run.name=smp-2.4-hyperpod
    recipes.trainer.num_nodes=4
    recipes.trainer.devices=8
    recipes.model.fp8=False
    'cluster.container_mounts=[/fsx]'
    recipes.model.tensor_model_parallel_degree=4
    recipes.model.data.use_synthetic_data=True
)
cd "$launcher"
HYDRA_FULL_ERROR=1 exec python3 main.py "${overrides[@]}"
