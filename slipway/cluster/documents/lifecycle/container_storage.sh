#!/bin/bash
# Docker's, containerd's and enroot's data go to the node's large disk: images fill the root disk.
# Paths and order of disks are those of `inv storage.move --profile hyperpod`. May run again.
set -euo pipefail
root=${SLIPWAY_ROOT:-}

# The instance store is mounted by a service that is slower than this script.
if systemctl cat dlami-nvme.service > /dev/null 2>&1; then
    for _ in $(seq 60); do
        mountpoint -q "$root/opt/dlami/nvme" && break
        sleep 2
    done
fi
disk=
for candidate in /opt/dlami/nvme /opt/sagemaker; do
    if mountpoint -q "$root$candidate"; then
        disk=$candidate
        break
    fi
done
if [ -z "$disk" ]; then
    echo "no large disk here: container data stay on the root disk"
    exit 0
fi
echo "container data go to $disk"

install -d -m 0711 "$root$disk/docker/data-root"
install -d -m 0700 "$root$disk/docker/tmp" "$root$disk/containerd/data-root"
install -d -m 1777 "$root$disk/tmp" "$root$disk/tmp/enroot" "$root$disk/tmp/enroot/data" \
    "$root$disk/enroot"

if command -v dockerd > /dev/null; then
    # What stands in daemon.json (the nvidia runtime) stays: a second JSON behind it breaks Docker.
    changed=$(ROOT=$root DISK=$disk python3 - << 'PYTHON'
import json, os, pathlib
root, disk = os.environ["ROOT"], os.environ["DISK"]
path = pathlib.Path(f"{root}/etc/docker/daemon.json")
old = json.loads(path.read_text() or "{}") if path.exists() else {}
new = {**old, "data-root": f"{disk}/docker/data-root"}
if new != old:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(new, indent=2) + "\n")
    beside.rename(path)
drop_ins = {
    "docker.service": f"[Service]\nEnvironment=DOCKER_TMPDIR={disk}/docker/tmp\n",
    "containerd.service": "[Service]\nExecStart=\n"
    f"ExecStart=/usr/bin/containerd --root {disk}/containerd/data-root\n",
}
touched = new != old
for unit, text in drop_ins.items():
    drop_in = pathlib.Path(f"{root}/etc/systemd/system/{unit}.d/slipway.conf")
    if not drop_in.exists() or drop_in.read_text() != text:
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(text)
        touched = True
print("yes" if touched else "no")
PYTHON
    )
    if [ "$changed" = yes ] \
        || [ "$(docker info -f '{{.DockerRootDir}}')" != "$disk/docker/data-root" ]; then
        systemctl daemon-reload
        systemctl restart containerd docker
    fi
fi

conf=$root/etc/enroot/enroot.conf
if [ -f "$conf" ]; then
    # The first line of a key counts, also for HyperPod's own check, which reads comments, too.
    DISK=$disk python3 - "$conf" << 'PYTHON'
import os, pathlib, re, sys
path, disk = pathlib.Path(sys.argv[1]), os.environ["DISK"]
text = path.read_text()
values = {
    "ENROOT_RUNTIME_PATH": f"{disk}/tmp/enroot/user-$(id -u)",
    "ENROOT_CACHE_PATH": f"{disk}/enroot",
    "ENROOT_DATA_PATH": f"{disk}/tmp/enroot/data/user-$(id -u)",
    "ENROOT_TEMP_PATH": f"{disk}/tmp",
}
for key, value in values.items():
    line = f"{key:<26} {value}"
    named = re.compile(rf"^[ \t]*(#[ \t]*)?{key}\b.*$", re.M)
    first = named.search(text)
    if first is None:
        text = text.rstrip("\n") + f"\n{line}\n"
        continue
    rest = re.sub(rf"(?m)^[ \t]*{key}\b", rf"#{key}", text[first.end():])
    text = text[: first.start()] + line + rest
if text != path.read_text():
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.rename(path)
PYTHON
fi
