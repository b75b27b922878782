"""The disks of a machine: what is mounted, which one fits, and if it can hold Docker's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.disks.candidates import (
        WAIT_S,
        Candidate,
        candidate_disks,
        choose_disk,
        home_of,
        is_mounted,
    )
    from slipway.storage.disks.profiles import NVME, DataPlaces, Profile, profile
    from slipway.storage.disks.target_disk import (
        TargetDisk,
        check_disk_name,
        check_target_disk,
        inspect_disk,
        try_disk,
    )

__all__ = [
    "NVME",
    "WAIT_S",
    "Candidate",
    "DataPlaces",
    "Profile",
    "TargetDisk",
    "candidate_disks",
    "check_disk_name",
    "check_target_disk",
    "choose_disk",
    "home_of",
    "inspect_disk",
    "is_mounted",
    "profile",
    "try_disk",
]

__getattr__ = lazy_face(
    __name__,
    {
        "candidates": "Candidate WAIT_S candidate_disks choose_disk home_of is_mounted",
        "profiles": "DataPlaces NVME Profile profile",
        "target_disk": "TargetDisk check_disk_name check_target_disk inspect_disk try_disk",
    },
)
