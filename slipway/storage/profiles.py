"""What is known of the kinds of machines that build training images, and where things go there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from slipway.core import UsageError
from slipway.storage.machine import Machine

NOTEBOOK_DISK = "/home/ec2-user/SageMaker"
NVME = "/opt/dlami/nvme"
SAGEMAKER_EBS = "/opt/sagemaker"


@dataclass(frozen=True)
class Profile:
    """A kind of machine. `disks` are its large disks' mount points, the preferred one first."""

    name: str
    disks: tuple[str, ...]
    notes: tuple[str, ...] = ()


PROFILES = {
    # Only this EBS volume survives a stop of the instance, and a lifecycle script that runs
    # longer than five minutes fails the start (SageMaker developer guide, "Customize a SageMaker
    # notebook instance using an LCC script").
    "notebook": Profile(
        "notebook",
        (NOTEBOOK_DISK,),
        ("a lifecycle script has 5 minutes: use --mode fresh in one",),
    ),
    # The order of the lifecycle scripts after awslabs/awsome-distributed-ai#427 and #781.
    "hyperpod": Profile("hyperpod", (NVME, SAGEMAKER_EBS)),
    "ec2": Profile("ec2", (NVME,)),
}


@dataclass(frozen=True)
class DataPlaces:
    """Where everything goes on a disk. The same on every machine, and on HyperPod the paths that
    awslabs/awsome-distributed-ai:1.architectures/5.sagemaker-hyperpod has: its hyperpod-precheck.py
    compares data-root and ENROOT_RUNTIME_PATH, literally.
    """

    disk: Path

    @property
    def docker(self) -> Path:
        """dockerd's data-root."""
        return self.disk / "docker" / "data-root"

    @property
    def docker_tmp(self) -> Path:
        """DOCKER_TMPDIR: layers are unpacked from here."""
        return self.disk / "docker" / "tmp"

    @property
    def containerd(self) -> Path:
        """containerd's root."""
        return self.disk / "containerd" / "data-root"

    def embedded(self, home: Path) -> Path:
        """The data of the embedded engine whose own folder is `home`; a disk may hold several."""
        name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        return self.disk / "slipway" / name / "data"

    def enroot(self, shared_cache: Path | None) -> dict[str, str]:
        """enroot's settings; the cache may be on a shared file system, the rest may not."""
        temp = self.disk / "tmp"
        return {
            "ENROOT_RUNTIME_PATH": f"{temp / 'enroot'}/user-$(id -u)",
            "ENROOT_CACHE_PATH": str(shared_cache or self.disk / "enroot"),
            "ENROOT_DATA_PATH": f"{temp / 'enroot' / 'data'}/user-$(id -u)",
            "ENROOT_TEMP_PATH": str(temp),
        }

    def enroot_folders(self, shared_cache: Path | None) -> tuple[Path, ...]:
        """Folders that every user writes to, like /tmp; enroot makes none of them itself."""
        tmp = self.disk / "tmp"
        cache = shared_cache or self.disk / "enroot"
        return (tmp, tmp / "enroot", tmp / "enroot" / "data", cache)


def detect_profile(machine: Machine) -> Profile:
    """The kind of machine this is."""
    if machine.at("/opt/sagemaker_cluster").exists() or machine.at(SAGEMAKER_EBS).is_mount():
        return PROFILES["hyperpod"]
    metadata = machine.at("/opt/ml/metadata/resource-metadata.json")
    if metadata.exists() or machine.at(NOTEBOOK_DISK).is_mount():
        return PROFILES["notebook"]
    return PROFILES["ec2"]


def profile(name: str, machine: Machine) -> Profile:
    """The profile of that name; "auto" looks at the machine. Raises UsageError."""
    if name == "auto":
        return detect_profile(machine)
    if name not in PROFILES:
        raise UsageError(
            f"there is no profile {name!r}", cure=f"Use {', '.join(PROFILES)} or auto."
        )
    return PROFILES[name]


def expected_disk(machine: Machine, disk: str) -> bool:
    """Whether a disk of a profile will be there, now or a little later.

    The Deep Learning AMIs mount the instance store with a service of theirs, after boot
    (awslabs/awsome-distributed-ai#427); where neither that service nor the folder is, there is no
    such disk.
    """
    late = disk == NVME and machine.has_unit("dlami-nvme.service")
    return late or machine.at(disk).exists()
