#!/bin/sh
# libfabric of the EFA installer, without the kernel's module and without Open MPI. The installer
# itself (efa_installer.sh) asks apt for what it depends on, so its packages are unpacked instead.
# AWS, EC2 user guide, "Get started with EFA and NCCL". Not run: the archive has 600 MB.
set -eu
tar xf "$SLIPWAY_INPUTS"/aws-efa-installer-*.tar.gz
# shellcheck source=/dev/null
. /etc/os-release
packages=aws-efa-installer/DEBS/UBUNTU$(echo "$VERSION_ID" | tr -d .)/$(uname -m)
mkdir unpacked
for package in "$packages"/libfabric*.deb; do
    dpkg-deb -x "$package" unpacked
done
cp -a "unpacked$SLIPWAY_FOLDER/." "$SLIPWAY_FOLDER/"
