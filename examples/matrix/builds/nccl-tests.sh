#!/bin/sh
# github.com/NVIDIA/nccl-tests, README.md, "Build", without MPI: the launcher starts the ranks. NCCL
# is in /usr/local (aws/deep-learning-containers:pytorch/training/docker, BUILDDIR=/usr/local). Not
# run.
set -eu
tar xf "$SLIPWAY_INPUTS"/nccl-tests-*.tar.gz
cd nccl-tests-*
make -j "$SLIPWAY_JOBS" MPI=0 CUDA_HOME="$CUDA_HOME" NCCL_HOME=/usr/local
mkdir -p "$SLIPWAY_FOLDER/bin"
cp build/*_perf "$SLIPWAY_FOLDER/bin/"
