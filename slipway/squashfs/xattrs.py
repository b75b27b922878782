"""Which extended attributes belong to an image."""

from __future__ import annotations

CAPABILITY = b"security.capability"


def belongs(name: bytes) -> bool:
    """Whether an attribute is content: file capabilities, and what users set.

    Left out: overlayfs's bookkeeping (trusted.overlay.*, user.overlay.*), and the labels that the
    host's own security modules put on every file (security.selinux, security.ima), which would
    make the result depend on the machine. Docker keeps capabilities only
    (moby/moby:pkg/archive/archive.go, ReadSecurityXattrToTarHeader).
    """
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == CAPABILITY
