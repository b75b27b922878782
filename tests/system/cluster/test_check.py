"""`inv cluster.check` on a real Slurm: a healthy cluster, and each fault made on purpose.

pyxis, enroot and ssh are stand-ins (slurm_node/). Containers of one machine share its clock, its
kernel and its network: a clock that is wrong is a python3 that reads it wrongly, and other devices
are files mounted where the kernel shows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import FAILED, Project
from slipway.engine import Engine
from tests.support.clones import Clone
from tests.support.slurm_cluster import (
    NODES,
    THIRD,
    SlurmCluster,
    node_image,
    running,
    wait,
)

EVERYWHERE = ("c0", *NODES, THIRD)

#: What a cluster has that users have set up with care, for the user ann.
HEALTHY = """
echo 'ann:x:1000:1000::/fsx/home/ann:/bin/bash' >>/etc/passwd
echo 'optional /usr/local/lib/slurm/spank_pyxis.so' >/etc/slurm/plugstack.conf
mkdir -p /etc/enroot
cat >/etc/enroot/enroot.conf <<'END'
ENROOT_RUNTIME_PATH /var/tmp/enroot/run/user-$(id -u)
ENROOT_CACHE_PATH   /var/tmp/enroot/cache
ENROOT_DATA_PATH    /var/tmp/enroot/data/user-$(id -u)
END
install -d -m 1777 /var/tmp/enroot
ln -sf /bin/true /usr/local/bin/squashfuse
[ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229
"""


@pytest.fixture
def cluster(
    engine: Engine, shared_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    root = tmp_path_factory.mktemp("slurm")
    clone = Clone.make(root / "clone", shared_project.state)
    (root / "fsx").mkdir()
    image = node_image(engine, shared_project.state, root / "recipe")
    with running(engine, image, root, clone, Path("none.sqsh")) as made:
        for node in EVERYWHERE:
            made.run("bash", "-euc", HEALTHY, node=node)
        made.run("install", "-d", "-o", "1000", "-g", "1000", "/fsx/home/ann")
        yield made


def faults(cluster: SlurmCluster, *words: str, code: int = FAILED) -> set[tuple[str, str]]:
    """(kind, nodes) of all that is found, notes included."""
    ended = cluster.by_ssh("cluster.check", "--json", *words, host="ann@c0", code=code)
    print(ended.stdout)  # shown where the test has failed
    return {(f["kind"], ",".join(f["nodes"])) for f in json.loads(ended.stdout)["faults"]}


def test_a_healthy_cluster_has_no_faults_and_nothing_is_left_behind(cluster: SlurmCluster) -> None:
    assert faults(cluster, code=0) == set()
    assert list((cluster.fsx / "home" / "ann").iterdir()) == []
    assert cluster.run("squeue", "--noheader") == ""


#: Other devices than the node has: interfaces with an MTU, and how many of EFA.
DEVICES = """
mkdir -p /made/class/net/eth0 /made/class/infiniband
echo {mtu} >/made/class/net/eth0/mtu
echo up >/made/class/net/eth0/operstate
for ((at = 0; at < {efa}; at++)); do mkdir /made/class/infiniband/rdmap$at; done
mount --bind /made/class /sys/class
mkdir /made/nvidia
echo 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue' >/made/version
mkdir -p /made/driver/nvidia
mv /made/version /made/driver/nvidia/version
mount --bind /made/driver /proc/driver
"""

#: A python3 whose clock is late.
LATE = """
import sys, time
now = time.time
time.time = lambda: now() - 90
del sys.argv[0]
exec(compile(sys.stdin.read(), "stdin", "exec"), {"__name__": "__main__"})
"""
WRAP = """
printf '#!/bin/sh\\nexec /usr/bin/python3 /late.py "$@"\\n' >/usr/local/bin/python3
chmod 755 /usr/local/bin/python3
"""

#: Faults of nodes that do not hide each other: (kind, nodes it is told of, where, how it is made).
OF_NODES = (
    ("tmp", "n1", "n1", "mount -t tmpfs -o size=1G,mode=1777 tmp /tmp"),
    ("names", "n1", "n1", "grep -v n3 /etc/hosts >/hosts; mount --bind /hosts /etc/hosts"),
    ("pyxis-twice", "n1", "n1", "sed -i p /etc/slurm/plugstack.conf"),
    (
        "user-namespaces",
        "n1",
        "n1",
        "echo 0 >/zero; mount --bind /zero /proc/sys/user/max_user_namespaces",
    ),
    ("efa", "n1", "n1", DEVICES.format(mtu=9001, efa=2, driver="570.1")),
    ("limits", "n1", "n1", "true"),  # memory is limited, and n1 has EFA now
    ("mtu", "n2", "n2", DEVICES.format(mtu=1500, efa=0, driver="580.2")),
    ("driver", "n2", "n2", "true"),
    ("enroot-rights", "n2", "n2", "chmod 700 /var/tmp/enroot"),
    ("fuse", "n2", "n2", "rm /dev/fuse"),
    ("home", "n2", "n2", "mount -t tmpfs home /fsx/home/ann"),
    ("user", "n2", "n2", "sed -i s/^ann:/bob:/ /etc/passwd"),
    ("pyxis-ignored", "n2", "n2", "rm /etc/slurm/plugstack.conf"),
    ("sqsh", "n2", "n1", "touch /local/x.sqsh"),
    ("drained", "n3", "c0", "scontrol update NodeName=n3 State=DRAIN Reason='Kill task failed'"),
    ("partition", "", "c0", "scontrol update PartitionName=three State=DOWN"),
    ("clock", "n2", "n2", f"cat >/late.py <<'END'{LATE}END\n{WRAP}"),
)


def test_each_fault_of_a_node_is_named_and_no_other_under_stand_ins(cluster: SlurmCluster) -> None:
    for _, _, node, script in OF_NODES:
        cluster.run("bash", "-euc", script, node=node)
    wanted = {(kind, nodes) for kind, nodes, _, _ in OF_NODES}
    assert faults(cluster, "--sqsh", "/local/x.sqsh") == wanted


#: A disk of its own in a file: SIZE, FOLDER. The kernel's loop devices are reached as in `boot`.
DISK = """
truncate -s {size} /local/disk
mkfs.ext4 -q -E nodiscard,lazy_itable_init=1 -O ^has_journal -T largefile4 /local/disk
mkdir -p {folder}
mount -t devtmpfs dev /dev
mount -o loop /local/disk {folder}
umount /dev
"""

#: Faults of the cluster, and of others of its nodes.
OF_THE_CLUSTER = (
    ("pyxis", "", "c0", "rm /etc/slurm/plugstack.conf"),
    (
        "auto-resume",
        "",
        "c0",
        "echo 'PrologFlags=Contain' >>/etc/slurm/slurm.conf; mkdir /opt/sagemaker_cluster",
    ),
    (
        "topology",
        "n3",
        "c0",
        "echo 'TopologyPlugin=topology/tree' >>/etc/slurm/slurm.conf;"
        "echo 'SwitchName=s1 Nodes=n[1-2]' >/etc/slurm/topology.conf; scontrol reconfigure",
    ),
    ("docker-disk", "n1", "n1", DISK.format(size="4T", folder="/nvme")),
    ("enroot-disk", "n1", "n1", "install -m 755 /bin/true /usr/bin/dockerd"),
    ("enroot", "n2", "n2", "umount /usr/local/bin/enroot; rm -f /usr/local/bin/enroot"),
    ("space", "n2", "n2", DISK.format(size="100M", folder="/var/lib/docker")),
    ("space", "n2", "n2", "install -m 755 /bin/true /usr/bin/dockerd"),
)


def test_each_fault_of_the_cluster_is_named_and_no_other_under_stand_ins(
    cluster: SlurmCluster,
) -> None:
    for _, _, node, script in OF_THE_CLUSTER:
        cluster.run("bash", "-euc", script, node=node)
    assert faults(cluster) == {(kind, nodes) for kind, nodes, _, _ in OF_THE_CLUSTER}


def test_a_node_that_runs_nothing_is_named_and_one_in_use_is_noted_under_stand_ins(
    cluster: SlurmCluster,
) -> None:
    cluster.run("chmod", "-x", "/usr/bin/python3", node="n2")
    cluster.run("sbatch", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=sleep 99")
    wait(lambda: "allocated" in cluster.states(), cluster.states)
    assert faults(cluster) == {("silent", "n2"), ("busy", "n1")}
