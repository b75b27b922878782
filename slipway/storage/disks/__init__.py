"""The disks of a machine: what is mounted, which one fits, and if it can hold Docker's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.disks.candidates import Candidate
    from slipway.storage.disks.file_systems import home_of, is_mounted
    from slipway.storage.disks.profiles import NVME, DataPlaces, Profile, profile
    from slipway.storage.disks.target_disk import (
        WAIT_S,
        TargetDisk,
        candidate_disks,
        check_disk_name,
        check_target_disk,
        choose_disk,
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
        "candidates": "Candidate",
        "file_systems": "home_of is_mounted",
        "profiles": "DataPlaces NVME Profile profile",
        "target_disk": (
            "TargetDisk WAIT_S candidate_disks check_disk_name check_target_disk choose_disk "
            "inspect_disk try_disk"
        ),
    },
)
