#!/bin/bash
# For `slurm: legacy`: mounts the shared disk and starts Slurm, which HyperPod does itself where
# CreateCluster has Slurm's configuration. Runs as root on each new node. May run again.
set -euo pipefail
cd "$(dirname "$0")"
root=${SLIPWAY_ROOT:-}
log=$root/var/log/provision/slipway.log
mkdir -p "${log%/*}"
exec > >(tee -a "$log") 2>&1
echo "$(date -u +%FT%TZ) on_create.sh"

resources=${SAGEMAKER_RESOURCE_CONFIG_PATH:-/opt/ml/config/resource_config.json}
facts=$(python3 - "$resources" provisioning_parameters.json << 'PYTHON'
import json, pathlib, subprocess, sys
groups = json.loads(pathlib.Path(sys.argv[1]).read_text())["InstanceGroups"]
asked = json.loads(pathlib.Path(sys.argv[2]).read_text())
kinds = {asked["controller_group"]: "controller", asked.get("login_group"): "login"}
addresses = {g["Name"]: [node["CustomerIpAddress"] for node in g["Instances"]] for g in groups}
own = set(subprocess.run(["hostname", "-I"], capture_output=True, check=True, text=True)
          .stdout.split())
mine = [name for name, known in addresses.items() if own & set(known)]
if not mine:
    sys.exit(f"none of the addresses {sorted(own)} is in {sys.argv[1]}")
controllers = ",".join(addresses[asked["controller_group"]])
print(kinds.get(mine[0], "compute"), controllers, asked["fsx_dns_name"], asked["fsx_mountname"])
PYTHON
)
read -r kind controllers dns mount <<< "$facts"
echo "this is a $kind node; controllers: $controllers"

if ! mountpoint -q "$root/fsx"; then
    mkdir -p "$root/fsx" "$root/etc"
    grep -q " /fsx lustre " "$root/etc/fstab" \
        || echo "$dns@tcp:/$mount /fsx lustre defaults,noatime,flock,_netdev 0 0" >> "$root/etc/fstab"
    for _ in 1 2 3 4 5; do
        mount /fsx && break
        sleep 10
    done
    mountpoint -q "$root/fsx"
fi

if [ "$kind" = controller ]; then
    systemctl enable --now slurmctld
else
    # The image's unit has $SLURMD_OPTIONS in its command.
    unit=$root/etc/systemd/system/slurmd.service.d
    mkdir -p "$unit"
    printf '[Service]\nEnvironment="SLURMD_OPTIONS=--conf-server %s"\n' "$controllers" \
        > "$unit/slipway.conf"
    systemctl daemon-reload
    systemctl enable --now slurmd || [ "$kind" = login ] # a login node is in no partition
fi
exec bash on_init_complete.sh
