"""Data of a job: S3 prefixes, training code, checkpoints, and going on from the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.data.file_tree import skipped_rows
    from launcher.data.job_data import JobAgreement, JobData, agreed_from_wire, warn_of_model
    from launcher.data.object_keys import map_keys
    from launcher.data.s3 import S3, s3_uri
    from launcher.data.training_code import bring_source, find_source, install_code
    from launcher.data.transfer import (
        TransferResult,
        differences,
        directory_lock,
        fetch_prefix,
        local_files,
        send_directory,
        sizes,
    )
    from launcher.data.transfer_plan import TransferPlan, plan_transfers

__all__ = [
    "S3",
    "JobAgreement",
    "JobData",
    "TransferPlan",
    "TransferResult",
    "agreed_from_wire",
    "bring_source",
    "differences",
    "directory_lock",
    "fetch_prefix",
    "find_source",
    "install_code",
    "local_files",
    "map_keys",
    "plan_transfers",
    "s3_uri",
    "send_directory",
    "sizes",
    "skipped_rows",
    "warn_of_model",
]

__getattr__ = lazy_face(
    __name__,
    {
        "job_data": "JobAgreement JobData agreed_from_wire warn_of_model",
        "file_tree": "skipped_rows",
        "object_keys": "map_keys",
        "s3": "S3 s3_uri",
        "training_code": "bring_source find_source install_code",
        "transfer": (
            "TransferResult differences directory_lock fetch_prefix local_files send_directory "
            "sizes"
        ),
        "transfer_plan": "TransferPlan plan_transfers",
    },
)
