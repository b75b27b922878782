"""Work that several machines share through one folder: who makes a thing, and what was made.

The folder may be NFS, Lustre or any other that has rename and hard links. No clock is compared
between machines, and no lock of the file system is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.core.sharing.leases import LEASE_S, Lease, LeaseFolder
    from slipway.core.sharing.shared_parts import PartClaim, SharedParts, refresh_folder

__all__ = ["LEASE_S", "Lease", "LeaseFolder", "PartClaim", "SharedParts", "refresh_folder"]

__getattr__ = lazy_face(
    __name__,
    {"leases": "LEASE_S Lease LeaseFolder", "shared_parts": "PartClaim SharedParts refresh_folder"},
)
