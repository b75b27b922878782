#!/bin/bash
# Runs as root on each new node, after HyperPod has mounted the disks and set Slurm up. May run again.
set -euo pipefail
cd "$(dirname "$0")"
log=${SLIPWAY_ROOT:-}/var/log/provision/slipway.log
mkdir -p "${log%/*}"
exec > >(tee -a "$log") 2>&1
for step in container_storage.sh shared_home.sh; do
    echo "$(date -u +%FT%TZ) $step"
    bash "$step"
done
echo "$(date -u +%FT%TZ) done"
