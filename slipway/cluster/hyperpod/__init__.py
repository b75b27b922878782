"""HyperPod clusters from their files: made part after part, looked at, entered, removed.

A cluster's state is in AWS alone: parts are found by name or tag, so that any machine goes on
where another was cut. One run at a time works on a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.hyperpod.cluster_change import bring_up_cluster, delete_cluster
    from slipway.cluster.hyperpod.cluster_status import open_shell, show_cluster, show_nodes

__all__ = ["bring_up_cluster", "delete_cluster", "open_shell", "show_cluster", "show_nodes"]

__getattr__ = lazy_face(
    __name__,
    {
        "cluster_change": "bring_up_cluster delete_cluster",
        "cluster_status": "open_shell show_cluster show_nodes",
    },
)
