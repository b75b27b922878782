"""What is wrong with a Slurm cluster, from what its users report: named, with the cure.

Facts are gathered once, on the head node and by one srun on the nodes; checks are pure functions of
these facts. Nothing is changed, but for an empty file in the home directory for as long as it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.check.cluster_check import check_cluster

__all__ = ["check_cluster"]

__getattr__ = lazy_face(__name__, {"cluster_check": "check_cluster"})
