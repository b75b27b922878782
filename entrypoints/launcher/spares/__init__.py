"""The launcher of a node whose job has spares (--spares): above those that train.

It stays connected to all nodes of the job, the spares among them, and starts a launcher of its own
for each beginning of the job in which this node takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.spares.pool_node import PoolNode

__all__ = ["PoolNode"]

__getattr__ = lazy_face(__name__, {"pool_node": "PoolNode"})
