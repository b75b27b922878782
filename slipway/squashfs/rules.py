"""What changes on the way into an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What changes on the way into the image.

    `all_root`: every file belongs to 0:0 (as `mksquashfs -all-root`). `readable_depth`: down to
    so many levels files get u+r and directories u+rw; 0 for as they are. `keep_devices`: device
    nodes stay. `mtime`: of directories that no layer describes, in seconds.
    """

    all_root: bool = False
    readable_depth: int = 0
    keep_devices: bool = True
    mtime: int = 0
