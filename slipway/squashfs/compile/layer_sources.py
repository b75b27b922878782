"""What a layer can be read from, and how reading tells of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CAPABILITY = b"security.capability"

MTIME_MAX = (1 << 32) - 1

OnProgress = Callable[[str, int, int], None]
"""(layer digest, bytes so far, bytes in all or 0); the first call for a layer has 0 bytes."""


def no_progress(layer: str, done: int, total: int) -> None:
    """For callers that want none."""
    del layer, done, total


@dataclass(frozen=True)
class TarSource:
    """A layer archive. `digest` is the sha256 of the plain tar (the diff id), and is checked.

    `open` gives the blob in pieces, compressed or not; `size` is the blob's bytes.
    """

    digest: str
    open: Callable[[], Iterable[bytes]]
    size: int = 0


@dataclass(frozen=True)
class DirectorySource:
    """A layer directory of overlayfs. `digest` names its content (the diff id).

    `archive`, where there is one, is read instead of a folder that overlayfs alone can make sense
    of (redirects, metadata-only copies).
    """

    digest: str
    folder: Path
    archive: TarSource | None = None


Source = DirectorySource | TarSource


def xattr_is_kept(name: bytes) -> bool:
    """Whether an attribute is content: file capabilities, and what users set.

    Left out: overlayfs's bookkeeping (trusted.overlay.*, user.overlay.*), and the labels that the
    host's own security modules put on every file (security.selinux, security.ima), which would
    make the result depend on the machine. Docker keeps capabilities only
    (moby/moby:pkg/archive/archive.go, ReadSecurityXattrToTarHeader).
    """
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == CAPABILITY
