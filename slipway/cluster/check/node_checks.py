"""Checks of what the nodes say of themselves, each alone and beside the others. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from slipway.cluster.check.cluster_facts import ClusterFacts, MachineFacts, PlaceFacts
from slipway.cluster.check.fault import (
    ClusterCheck,
    ClusterFault,
    Faults,
    differing_nodes,
    group_nodes,
    some_nodes,
)
from slipway.core import human_bytes

GB = 1_000_000_000
LEAST_FREE = 2 * GB
LEAST_FREE_SHARE = 0.02
LEAST_TMP = 10 * GB
#: A disk is worth moving to where it has so many times the root disk's size, or space.
BIGGER = 2
MOST_SKEW_S = 2.0
LEAST_FILES = 4096
_NETWORK = ("nfs", "nfs4", "lustre", "cifs", "beegfs", "gpfs", "fuse.s3fs", "wekafs", "ceph")
_FOLDERS = ("ENROOT_RUNTIME_PATH", "ENROOT_CACHE_PATH", "ENROOT_DATA_PATH", "ENROOT_TEMP_PATH")


def _each(
    facts: ClusterFacts,
    state: Literal["wrong", "note"],
    kind: str,
    describe: Callable[[MachineFacts], str | None],
    cure: str,
) -> Faults:
    for text, nodes in group_nodes(facts.machines, describe).items():
        yield ClusterFault(state, kind, nodes, text, cure)


def _unlike(
    facts: ClusterFacts,
    state: Literal["wrong", "note"],
    kind: str,
    describe: Callable[[MachineFacts], str],
    cure: str,
) -> Faults:
    if differ := differing_nodes(facts.machines, describe):
        text, odd = differ
        yield ClusterFault(state, kind, odd, text, cure)


def _enroot(facts: ClusterFacts) -> Faults:
    return _each(
        facts,
        "wrong",
        "enroot",
        lambda node: None if "enroot" in node.tools else "enroot is not installed",
        "Install it from NVIDIA/enroot's releases: pyxis and --runtime enroot both need it.",
    )


def _enroot_rights(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        closed = [
            f"{name[7:-5].lower()} {place.path}"
            + ("" if place.existing == place.path else f" ({place.existing} is there)")
            for name, place in node.places.items()
            if name in _FOLDERS and not place.writable
        ]
        return (
            f"{node.user} may not write enroot's folders: {', '.join(closed)}" if closed else None
        )

    return _each(
        facts,
        "wrong",
        "enroot-rights",
        describe,
        "A folder for each user (in /etc/enroot/enroot.conf: ENROOT_DATA_PATH "
        "/opt/dlami/nvme/enroot/data/user-$(id -u)), made by the prolog, or one with mode 1777.",
    )


def _bigger_disk(node: MachineFacts, place: PlaceFacts) -> PlaceFacts | None:
    """A disk of the node's own with far more space than the root disk, where `place` is on that."""
    if place.mount != "/":
        return None
    disks = [
        d for d in node.disks if d.total > BIGGER * place.total and d.free > BIGGER * place.free
    ]
    return max(disks, key=lambda disk: disk.free, default=None)


def _enroot_disk(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        place = node.places.get("ENROOT_DATA_PATH")
        if place is None:
            return None
        if place.type in _NETWORK:
            return f"enroot unpacks into {place.path}, which is on {place.type}"
        if place.type == "tmpfs":
            return f"enroot unpacks into {place.path}, which is memory"
        disk = _bigger_disk(node, place)
        if disk is None:
            return None
        return (
            f"enroot unpacks into {place.path} on the root disk, and {disk.mount} has "
            f"{human_bytes(disk.free)}"
        )

    return _each(
        facts,
        "wrong",
        "enroot-disk",
        describe,
        "`sudo ./inv storage.move DISK` on the node moves enroot's and Docker's data; for new ones "
        "ENROOT_DATA_PATH in /etc/enroot/enroot.conf.",
    )


def _docker_disk(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        place = node.places.get("docker")
        disk = _bigger_disk(node, place) if place else None
        if place is None or disk is None:
            return None
        return (
            f"Docker's data are in {place.path} on the root disk, and {disk.mount} has "
            f"{human_bytes(disk.free)}"
        )

    return _each(
        facts,
        "wrong",
        "docker-disk",
        describe,
        "`sudo ./inv storage.move DISK` on the node moves them.",
    )


def _tmp(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        small = {
            place.path: f"{place.path} has {human_bytes(place.total)} ({place.type})"
            for name in ("tmp", "ENROOT_TEMP_PATH")
            if (place := node.places.get(name)) and place.total < LEAST_TMP
        }
        return ", ".join(small.values()) or None

    return _each(
        facts,
        "wrong",
        "tmp",
        describe,
        f"Imports of images and many libraries need more than {human_bytes(LEAST_TMP)} there: "
        "ENROOT_TEMP_PATH in enroot.conf, and TMPDIR, on a disk.",
    )


def _space(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        full = {}
        for place in node.places.values():
            if place.type == "tmpfs":
                continue
            if place.free < LEAST_FREE or place.free < LEAST_FREE_SHARE * place.total:
                full[place.mount] = f"{place.mount} has {human_bytes(place.free)} left"
            elif place.inodes and place.free_inodes < LEAST_FREE_SHARE * place.inodes:
                full[place.mount] = f"{place.mount} has {place.free_inodes} inodes left"
        return ", ".join(full.values()) or None

    return _each(
        facts,
        "wrong",
        "space",
        describe,
        "`enroot list` and `enroot remove`, `docker system df`, old logs and checkpoints.",
    )


def _home(facts: ClusterFacts) -> Faults:
    head = facts.head.machine
    if not facts.head.marked:
        place = head.places.get("home")
        yield ClusterFault(
            "wrong",
            "home",
            (),
            f"{head.user} may not write its home directory {place.path if place else ''}".rstrip(),
            "It has to be there and belong to the user, on storage that all nodes share.",
        )
        return
    yield from _each(
        facts,
        "wrong",
        "home",
        lambda node: None if node.home_shared else "the home directory is not the head node's",
        "Mount one file system for home directories everywhere (on HyperPod FSx, and homes on it), "
        "or submit in a shared folder only.",
    )


def _user(facts: ClusterFacts) -> Faults:
    head = facts.head.machine
    return _each(
        facts,
        "wrong",
        "user",
        lambda node: (
            None
            if (node.user, node.uid) == (head.user, head.uid)
            else f"user {head.uid} is {node.user or 'unknown'} there, and {head.user} here"
        ),
        "One number for a user everywhere: LDAP or SSSD, or the same useradd --uid on all nodes.",
    )


def _clock(facts: ClusterFacts) -> Faults:
    answers = facts.answers

    def describe(node: MachineFacts) -> str | None:
        early, late = answers.began - node.time, node.time - answers.ended
        if max(early, late) <= MOST_SKEW_S:
            return None
        return f"its clock is {max(early, late):.0f} s {'behind' if early > late else 'ahead'}"

    return _each(
        facts,
        "wrong",
        "clock",
        describe,
        "`chronyc tracking` there; `systemctl restart chronyd`. munge refuses after 300 s, S3 "
        "after 900 s.",
    )


def _mtu(facts: ClusterFacts) -> Faults:
    names = {name for node in facts.machines.values() for name in node.interfaces}
    for name in sorted(names):
        machines = {n: m for n, m in facts.machines.items() if name in m.interfaces}
        differ = differing_nodes(machines, lambda m, at=name: f"MTU {m.interfaces[at]}")  # type: ignore[misc]
        if differ:
            yield ClusterFault(
                "wrong",
                "mtu",
                differ[1],
                f"{name}: {differ[0]}",
                f"`ip link set {name} mtu SIZE`, the same on all: larger packets are lost without "
                "a word, and NCCL hangs.",
            )


def _efa(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        needs = facts.instances.get(node.product)
        if needs and needs.efa is not None and node.efa < needs.efa:
            return f"{node.efa} EFA interfaces, and {node.product} has {needs.efa}"
        if node.efa and node.verbs < node.efa:
            return f"{node.efa} EFA interfaces, and {node.verbs} in /dev/infiniband"
        return None

    cure = (
        "The EFA driver (`fi_info -p efa` there), and a security group that allows all traffic to "
        "itself."
    )
    faults = list(_each(facts, "wrong", "efa", describe, cure))
    alike = {n: m for n, m in facts.machines.items() if m.product == _common_product(facts)}
    if not faults and (differ := differing_nodes(alike, lambda node: f"{node.efa} interfaces")):
        faults.append(ClusterFault("wrong", "efa", differ[1], differ[0], cure))
    yield from faults


def _common_product(facts: ClusterFacts) -> str:
    """The type that most nodes are of."""
    products = [node.product for node in facts.machines.values()]
    return max(products, key=products.count, default="")


def _gpus(facts: ClusterFacts) -> Faults:
    in_slurm = {node.name: node.gpus for node in facts.head.nodes}
    for name, node in facts.machines.items():
        needs = facts.instances.get(node.product)
        if needs and node.gpus < needs.gpus:
            yield ClusterFault(
                "wrong",
                "gpus",
                (name,),
                f"{node.gpus} GPUs, and {node.product} has {needs.gpus}",
                "`nvidia-smi` and `dmesg | grep -i xid` there; on HyperPod replace the node.",
            )
        elif in_slurm.get(name, 0) > node.gpus:
            yield ClusterFault(
                "wrong",
                "gpus",
                (name,),
                f"{node.gpus} GPUs, and Slurm gives out {in_slurm[name]}",
                "`nvidia-smi` there; Gres in slurm.conf and gres.conf.",
            )


def _driver(facts: ClusterFacts) -> Faults:
    machines = {name: node for name, node in facts.machines.items() if node.gpus or node.driver}
    differ = differing_nodes(
        machines, lambda node: f"driver {node.driver}" if node.driver else "no driver loaded"
    )
    if differ:
        yield ClusterFault(
            "wrong",
            "driver",
            differ[1],
            differ[0],
            "One NVIDIA driver on all nodes: NCCL and CUDA's forward compatibility differ by it.",
        )


def _system(facts: ClusterFacts) -> Faults:
    return _unlike(
        facts,
        "note",
        "system",
        lambda node: f"{node.os}, kernel {node.kernel}",
        "Nodes of one job should have one machine image.",
    )


def _limits(facts: ClusterFacts) -> Faults:
    yield from _each(
        facts,
        "wrong",
        "limits",
        lambda node: (
            f"memlock is {human_bytes(node.memlock)}, and EFA pins all it uses"
            if node.efa and node.memlock >= 0
            else None
        ),
        "`* - memlock unlimited` in /etc/security/limits.conf, LimitMEMLOCK=infinity for slurmd, "
        "and PropagateResourceLimitsExcept=MEMLOCK in slurm.conf.",
    )
    yield from _each(
        facts,
        "wrong",
        "limits",
        lambda node: (
            f"at most {node.nofile} open files (ulimit -Hn)"
            if 0 <= node.nofile < LEAST_FILES
            else None
        ),
        "Data loaders and NCCL need more: LimitNOFILE=1048576 for slurmd, and "
        "PropagateResourceLimitsExcept=NOFILE in slurm.conf.",
    )


def _fuse(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        if not node.fuse:
            return "/dev/fuse can not be opened"
        return None if "squashfuse" in node.tools else "squashfuse is not installed"

    return _each(
        facts,
        "note",
        "fuse",
        describe,
        "Without both every job unpacks its image: `modprobe fuse`, mode 666, and squashfuse.",
    )


def _user_namespaces(facts: ClusterFacts) -> Faults:
    def describe(node: MachineFacts) -> str | None:
        if node.uid == 0:
            return None
        most, clone, restricted = node.user_namespaces
        if most == 0:
            return "user.max_user_namespaces is 0"
        if clone == 0:
            return "kernel.unprivileged_userns_clone is 0"
        if restricted == 1:
            return "kernel.apparmor_restrict_unprivileged_userns is 1"
        return None

    return _each(
        facts,
        "wrong",
        "user-namespaces",
        describe,
        "enroot enters a user namespace: `sysctl` it, and in /etc/sysctl.d; with AppArmor give "
        "enroot a profile that allows userns.",
    )


def _names(facts: ClusterFacts) -> Faults:
    return _each(
        facts,
        "wrong",
        "names",
        lambda node: (
            f"knows no address of {some_nodes(node.unresolved)}" if node.unresolved else None
        ),
        "/etc/hosts or DNS, the same on all: launchers meet by these names.",
    )


def _files(facts: ClusterFacts) -> Faults:
    paths = {path for node in facts.machines.values() for path in node.files}
    for path in sorted(paths):
        sizes = {name: node.files.get(path, -1) for name, node in facts.machines.items()}
        missing = tuple(name for name, size in sizes.items() if size < 0)
        if missing:
            yield ClusterFault(
                "wrong",
                "sqsh",
                missing,
                f"{path} is not there",
                "Copy it, with its .json, to storage that all nodes share, or to every node.",
            )
        there = {n: m for n, m in facts.machines.items() if n not in missing}
        differ = differing_nodes(there, lambda m, at=path: f"{m.files[at]} bytes")  # type: ignore[misc]
        if differ:
            yield ClusterFault(
                "wrong",
                "sqsh",
                differ[1],
                f"{path}: {differ[0]}",
                "Copy it again, with its .json.",
            )


NODE_CHECKS = (
    ClusterCheck("enroot", "is enroot on every node", _enroot),
    ClusterCheck("enroot-rights", "may the user write enroot's folders", _enroot_rights),
    ClusterCheck("enroot-disk", "does enroot unpack onto the right disk", _enroot_disk),
    ClusterCheck("docker-disk", "is Docker's data on the right disk", _docker_disk),
    ClusterCheck("tmp", "is /tmp, and where enroot imports, large enough", _tmp),
    ClusterCheck("space", "have disks space and inodes", _space),
    ClusterCheck("home", "is the home directory shared", _home),
    ClusterCheck("user", "is the user the same everywhere", _user),
    ClusterCheck("clock", "do clocks agree", _clock),
    ClusterCheck("mtu", "have interfaces one MTU", _mtu),
    ClusterCheck("efa", "are all EFA interfaces there", _efa),
    ClusterCheck("gpus", "are all GPUs there", _gpus),
    ClusterCheck("driver", "have nodes one NVIDIA driver", _driver),
    ClusterCheck("system", "have nodes one system and kernel", _system),
    ClusterCheck("limits", "locked memory and open files", _limits),
    ClusterCheck("fuse", "can jobs start from a .sqsh without unpacking", _fuse),
    ClusterCheck("user-namespaces", "may users make user namespaces", _user_namespaces),
    ClusterCheck("names", "do nodes know each other's names", _names),
    ClusterCheck("sqsh", "is the .sqsh of --sqsh the same on all nodes", _files),
)
