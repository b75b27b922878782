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
sqsh_digest=abababababababababababababababababababababababababababababababab

# FILE, bytes, digest, whether to hash it. A file is hashed once: FILE.checked remembers it.
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
    if ! found=$(check_pieces "$1" "$3"); then
        found="$1 could not be read to its end"
    fi
    if [[ $found ]]; then
        echo "$place: $found" >&2
        return 1
    fi
    # Where this folder cannot be written to, the next job hashes again.
    { echo "$mark" >"$1.checked"; } 2>/dev/null || true
}

# FILE: brings what a start reads of it into this node's memory, many stretches at a time: behind
# storage that takes its time for each request, one after the other is what a start would wait for.
# FILE.json lists them as "START SIZE"; nothing else depends on it.
# shellcheck disable=SC2016,SC2329
read_ahead() {
    local hot
    hot=$(sed -n 's/^    "\([0-9]\{1,15\} [0-9]\{1,15\}\)",\{0,1\}$/\1/p' "$1.json")
    [[ -z $hot ]] || xargs --max-args=2 --max-procs=32 \
        /bin/bash -c "$(declare -f read_range)"$'\n''read_range "$0" "$@"' "$1" <<<"$hot"
} 2>/dev/null

# FILE, start, bytes.
# shellcheck disable=SC2329
read_range() {
    dd if="$1" bs=1M skip="$2" count="$3" iflag=skip_bytes,count_bytes of=/dev/null status=none
}

# FILE, digest: says what differs from FILE.json, whose lines "SIZE SHA256" have that digest. On
# several cores: a job's GPUs wait for it.
# shellcheck disable=SC2016,SC2329
check_pieces() {
    local pieces found cores at=0 size hash end
    if [[ ! -r $1.json ]]; then
        echo "$1.json is not there, or not readable: copy it together with the .sqsh"
        return
    fi
    pieces=$(sed -n 's/^    "\([0-9]\{1,\} [0-9a-f]\{64\}\)",\{0,1\}$/\1/p' "$1.json")
    found=$(sha256sum <<<"$pieces") || return
    if [[ $found != "$2 "* ]]; then
        echo "$1.json is of another export: copy it together with the .sqsh"
        return
    fi
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # it believes these
    found=$(
        while read -r size hash; do
            echo "$at $size $hash"
            at=$((at + size))
        done <<<"$pieces" |
            xargs --max-args=3 --max-procs=$((cores < 16 ? cores : 16)) \
                /bin/bash -c "$(declare -f check_piece)"$'\n''check_piece "$0" "$@"' "$1"
    ) || return
    if [[ $found ]]; then
        read -r at end < <(sort --numeric-sort <<<"$found")
        echo "$1 differs from its export in the bytes $at to $end: copy it again"
    fi
}

# FILE, start, bytes, sha256: start and end of what differs. 1 where it could not be read.
# shellcheck disable=SC2329
check_piece() {
    local found
    set -o pipefail
    found=$(dd if="$1" bs=1M skip="$2" count="$3" iflag=skip_bytes,count_bytes,fullblock status=none |
        sha256sum) || return 1
    if [[ $found != "$4 "* ]]; then
        echo "$2 $(($2 + $3))"
    fi
}

check_sqsh "$sqsh" "$sqsh_size" "$sqsh_digest" yes || exit 1

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
