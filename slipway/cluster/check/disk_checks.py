"""Checks of where nodes keep images, containers and homes: rights, disks, space. Pure."""

from __future__ import annotations

from slipway.cluster.check.cluster_facts import ClusterFacts, MachineFacts, PlaceFacts
from slipway.cluster.check.fault import ClusterCheck, ClusterFault, Faults, each_node
from slipway.core import human_bytes

GB = 1_000_000_000
LEAST_FREE = 2 * GB
LEAST_FREE_SHARE = 0.02
LEAST_TMP = 10 * GB
#: A disk is worth moving to where it has so many times the root disk's size, or space.
BIGGER = 2
_NETWORK = ("nfs", "nfs4", "lustre", "cifs", "beegfs", "gpfs", "fuse.s3fs", "wekafs", "ceph")
_FOLDERS = ("ENROOT_RUNTIME_PATH", "ENROOT_CACHE_PATH", "ENROOT_DATA_PATH", "ENROOT_TEMP_PATH")


def _enroot(facts: ClusterFacts) -> Faults:
    return each_node(
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

    return each_node(
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

    return each_node(
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

    return each_node(
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

    return each_node(
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

    return each_node(
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
    yield from each_node(
        facts,
        "wrong",
        "home",
        lambda node: None if node.home_shared else "the home directory is not the head node's",
        "Mount one file system for home directories everywhere (on HyperPod FSx, and homes on it), "
        "or submit in a shared folder only.",
    )


DISK_CHECKS = (
    ClusterCheck("enroot", "is enroot on every node", _enroot),
    ClusterCheck("enroot-rights", "may the user write enroot's folders", _enroot_rights),
    ClusterCheck("enroot-disk", "does enroot unpack onto the right disk", _enroot_disk),
    ClusterCheck("docker-disk", "is Docker's data on the right disk", _docker_disk),
    ClusterCheck("tmp", "is /tmp, and where enroot imports, large enough", _tmp),
    ClusterCheck("space", "have disks space and inodes", _space),
    ClusterCheck("home", "is the home directory shared", _home),
)
