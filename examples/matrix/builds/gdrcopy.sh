#!/bin/sh
# The library and the programs of GDRCopy; its kernel module belongs to the host.
# github.com/NVIDIA/gdrcopy, README.md, "Build and installation" (lib_install and exes_install are
# targets of its Makefile). Not run.
set -eu
tar xf "$SLIPWAY_INPUTS"/gdrcopy-*.tar.gz
cd gdrcopy-*
make -j "$SLIPWAY_JOBS" CUDA="$CUDA_HOME" prefix="$SLIPWAY_FOLDER" lib_install exes_install
