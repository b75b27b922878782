"""Checks of what the nodes say of themselves, each alone and beside the others. Pure."""

from __future__ import annotations

from slipway.cluster.check.cluster_facts import ClusterFacts, MachineFacts
from slipway.cluster.check.disk_checks import DISK_CHECKS
from slipway.cluster.check.fault import (
    ClusterCheck,
    ClusterFault,
    Faults,
    differing_nodes,
    each_node,
    some_nodes,
    unlike_nodes,
)
from slipway.core import human_bytes

MOST_SKEW_S = 2.0
LEAST_FILES = 4096


def _user(facts: ClusterFacts) -> Faults:
    head = facts.head.machine
    return each_node(
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

    return each_node(
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
    faults = list(each_node(facts, "wrong", "efa", describe, cure))
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
    return unlike_nodes(
        facts,
        "note",
        "system",
        lambda node: f"{node.os}, kernel {node.kernel}",
        "Nodes of one job should have one machine image.",
    )


def _limits(facts: ClusterFacts) -> Faults:
    yield from each_node(
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
    yield from each_node(
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

    return each_node(
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

    return each_node(
        facts,
        "wrong",
        "user-namespaces",
        describe,
        "enroot enters a user namespace: `sysctl` it, and in /etc/sysctl.d; with AppArmor give "
        "enroot a profile that allows userns.",
    )


def _names(facts: ClusterFacts) -> Faults:
    return each_node(
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
    *DISK_CHECKS,
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
