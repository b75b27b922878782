#!/bin/sh
# github.com/NVIDIA/apex, README.md, "Linux", into a folder of its own that PYTHONPATH names. Not run.
# It builds with the base's torch and setuptools, so nothing is asked of an index.
set -eu
tar xf "$SLIPWAY_INPUTS"/apex-*.tar.gz
cd apex-*
export MAX_JOBS="$SLIPWAY_JOBS" TORCH_CUDA_ARCH_LIST="8.0;9.0;10.0"
"$SLIPWAY_PYTHON" -m pip install --no-index --no-deps --no-build-isolation --no-compile \
    --target "$SLIPWAY_FOLDER" \
    --config-settings "--build-option=--cpp_ext" --config-settings "--build-option=--cuda_ext" .
