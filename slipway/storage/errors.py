"""What can go wrong while storage is moved."""

from __future__ import annotations

from slipway.core import SlipwayError


class StorageError(SlipwayError):
    """Something about disks, daemons or their configuration is not as a move needs it."""


class CopyError(StorageError):
    """A tree could not be copied, or its copy differs."""


class MoveFailedError(StorageError):
    """A move failed and everything is as before; `cause` is what failed."""


class RollbackFailedError(StorageError):
    """A move failed, and so did the way back: a person has to look. No data was deleted."""
