"""The ground floor: what every room may use. It imports nothing else of Slipway.

Errors and exit codes, the project's paths, files that become visible only when they are whole,
locks, leases on shared folders, digests, processes, mounts, units, events, the console,
credentials. It knows no Docker, no AWS and no matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.core.console import (
        OutputError,
        RedactingStream,
        Reporter,
        print_fields,
        print_json,
        print_table,
        say,
    )
    from slipway.core.credentials import Credentials, CredentialsFor, anonymous
    from slipway.core.digests import (
        Piece,
        PieceHasher,
        cut_pieces,
        differing_pieces,
        hash_chunks,
        is_executable,
        piece_lines,
        pieces_digest,
        recall_sha256,
        sha256_file,
        tree_files,
        tree_sha256,
    )
    from slipway.core.errors import (
        DOCUMENT_FAULTS,
        FAILED,
        INTERRUPTED,
        TERMINATED,
        UNREADABLE,
        USAGE,
        BadInputError,
        DriftError,
        EntryFaults,
        ProcessError,
        SlipwayError,
        TreeError,
        UsageError,
        error_text,
        printable,
    )
    from slipway.core.events import Event, OnEvent, silent
    from slipway.core.file_lock import (
        FileLock,
        exclusive,
        lock_is_held,
        service_lock,
        wait_for_lock,
    )
    from slipway.core.files import (
        commit,
        file_pieces,
        partial_file,
        read_note,
        remove_leftovers,
        write_atomic,
        write_note,
    )
    from slipway.core.interrupts import (
        Terminated,
        handle_signals,
        interrupt_behind,
        interrupt_exit_code,
        reset_signals,
    )
    from slipway.core.machine_limits import machine_limit
    from slipway.core.mounts import (
        DiskSpace,
        Mount,
        disk_space,
        free_bytes,
        mount_of,
        mounts_under,
        nearest_existing,
        parse_fstab,
        parse_mountinfo,
        read_fstab,
        read_mount_table,
    )
    from slipway.core.paths import Project, lease_seconds
    from slipway.core.processes import (
        Owner,
        child_processes,
        command_line,
        cpu_count,
        descends_from,
        end_process,
        find_process,
        read_pid,
        spawn,
        start_time,
        this_process,
        wait_until,
    )
    from slipway.core.redaction import public_environment, redact, remember_secret
    from slipway.core.sharing import (
        LEASE_S,
        Lease,
        LeaseFolder,
        PartClaim,
        SharedParts,
        refresh_folder,
    )
    from slipway.core.trees import TreeSize, measure, remove_tree, sync, sync_folder
    from slipway.core.units import did_you_mean, human_bytes, human_seconds

__all__ = [
    "DOCUMENT_FAULTS",
    "FAILED",
    "INTERRUPTED",
    "LEASE_S",
    "TERMINATED",
    "UNREADABLE",
    "USAGE",
    "BadInputError",
    "Credentials",
    "CredentialsFor",
    "DiskSpace",
    "DriftError",
    "EntryFaults",
    "Event",
    "FileLock",
    "Lease",
    "LeaseFolder",
    "Mount",
    "OnEvent",
    "OutputError",
    "Owner",
    "PartClaim",
    "Piece",
    "PieceHasher",
    "ProcessError",
    "Project",
    "RedactingStream",
    "Reporter",
    "SharedParts",
    "SlipwayError",
    "Terminated",
    "TreeError",
    "TreeSize",
    "UsageError",
    "anonymous",
    "child_processes",
    "command_line",
    "commit",
    "cpu_count",
    "cut_pieces",
    "descends_from",
    "did_you_mean",
    "differing_pieces",
    "disk_space",
    "end_process",
    "error_text",
    "exclusive",
    "file_pieces",
    "find_process",
    "free_bytes",
    "handle_signals",
    "hash_chunks",
    "human_bytes",
    "human_seconds",
    "interrupt_behind",
    "interrupt_exit_code",
    "is_executable",
    "lease_seconds",
    "lock_is_held",
    "machine_limit",
    "measure",
    "mount_of",
    "mounts_under",
    "nearest_existing",
    "parse_fstab",
    "parse_mountinfo",
    "partial_file",
    "piece_lines",
    "pieces_digest",
    "print_fields",
    "print_json",
    "print_table",
    "printable",
    "public_environment",
    "read_fstab",
    "read_mount_table",
    "read_note",
    "read_pid",
    "recall_sha256",
    "redact",
    "refresh_folder",
    "remember_secret",
    "remove_leftovers",
    "remove_tree",
    "reset_signals",
    "say",
    "service_lock",
    "sha256_file",
    "silent",
    "spawn",
    "start_time",
    "sync",
    "sync_folder",
    "this_process",
    "tree_files",
    "tree_sha256",
    "wait_for_lock",
    "wait_until",
    "write_atomic",
    "write_note",
]

__getattr__ = lazy_face(
    __name__,
    {
        "console": "OutputError RedactingStream Reporter print_fields print_json print_table say",
        "credentials": "Credentials CredentialsFor anonymous",
        "digests": (
            "Piece PieceHasher cut_pieces differing_pieces hash_chunks "
            "is_executable piece_lines pieces_digest recall_sha256 sha256_file tree_files "
            "tree_sha256"
        ),
        "errors": (
            "BadInputError DOCUMENT_FAULTS DriftError EntryFaults FAILED INTERRUPTED "
            "ProcessError SlipwayError UNREADABLE "
            "TERMINATED TreeError USAGE UsageError error_text printable"
        ),
        "events": "Event OnEvent silent",
        "file_lock": "FileLock exclusive lock_is_held service_lock wait_for_lock",
        "files": (
            "commit file_pieces partial_file read_note remove_leftovers write_atomic write_note"
        ),
        "interrupts": (
            "Terminated handle_signals interrupt_behind interrupt_exit_code reset_signals"
        ),
        "machine_limits": "machine_limit",
        "mounts": (
            "DiskSpace Mount disk_space free_bytes mount_of mounts_under nearest_existing "
            "parse_fstab parse_mountinfo read_fstab read_mount_table"
        ),
        "paths": "Project lease_seconds",
        "processes": (
            "Owner child_processes command_line cpu_count descends_from end_process "
            "find_process read_pid spawn start_time this_process wait_until"
        ),
        "redaction": "public_environment redact remember_secret",
        "sharing": "LEASE_S Lease LeaseFolder PartClaim SharedParts refresh_folder",
        "trees": "TreeSize measure remove_tree sync sync_folder",
        "units": "did_you_mean human_bytes human_seconds",
    },
)
