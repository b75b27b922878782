#!/bin/sh
# NCCL's plugin for EFA. github.com/aws/aws-ofi-nccl, README.md, "Build". Not run.
# Beside a compiler it takes autoconf, automake, libtool and the headers of hwloc.
set -eu
tar xf "$SLIPWAY_INPUTS"/aws-ofi-nccl-*.tar.gz
cd aws-ofi-nccl-*
./autogen.sh
./configure --prefix="$SLIPWAY_FOLDER" --with-libfabric=/opt/amazon/efa --with-cuda="$CUDA_HOME" \
    --disable-tests
make -j "$SLIPWAY_JOBS"
make install
