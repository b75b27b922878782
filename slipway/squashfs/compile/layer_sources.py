"""What a layer can be read from, and how reading tells of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
class ArchiveHeaders:
    """An archive without its files' contents, as whoever unpacked it kept it.

    `names` are those of its members, as it spells them. `pieces` is the archive in order; a number
    stands for so many bytes of content that are left out.
    """

    names: Callable[[], Iterator[bytes]]
    pieces: Callable[[], Iterator[bytes | int]]


@dataclass(frozen=True)
class DirectorySource:
    """A layer directory of overlayfs. `digest` names its content (the diff id).

    `archive`, where there is one, is read instead of a folder that overlayfs alone can make sense
    of (redirects, metadata-only copies). It, or quicker its `headers`, also say which folders the
    engine made up because the archive had only what is in them.
    """

    digest: str
    folder: Path
    archive: TarSource | None = None
    headers: ArchiveHeaders | None = None


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
