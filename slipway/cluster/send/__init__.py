"""A .sqsh from this machine to nodes: the program that fetches runs there, and asks us for pieces.

In come a file with its sidecar, and nodes by name or by a job; out comes, for each node, how it
went. A node is reached by ssh or by Slurm's srun, and needs nothing but Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.send.sqsh_send import SendOptions, send_sqsh

__all__ = ["SendOptions", "send_sqsh"]

__getattr__ = lazy_face(__name__, {"sqsh_send": "SendOptions send_sqsh"})
