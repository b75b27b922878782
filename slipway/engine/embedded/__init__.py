"""The engine that Slipway starts itself: dockerd on a socket and a data folder of its own.

Its leftovers (mounts, space held for a full disk) are cleaned here, and nobody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.engine.embedded.daemon import daemon_status, start_daemon
    from slipway.engine.embedded.reserve import release_space

__all__ = ["daemon_status", "release_space", "start_daemon"]

__getattr__ = lazy_face(
    __name__,
    {
        "daemon": "daemon_status start_daemon",
        "reserve": "release_space",
    },
)
