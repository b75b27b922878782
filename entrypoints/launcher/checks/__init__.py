"""The preflight: whether a node is fit for training, by quick checks and by measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.checks.node_check import measured_checks, quick_checks, timed
    from launcher.checks.node_facts import gather_facts, meet_nodes
    from launcher.checks.preflight import FAIL, INFO, WARN, Check, checks_table, require_fit
    from launcher.checks.probe import package_versions

__all__ = [
    "FAIL",
    "INFO",
    "WARN",
    "Check",
    "checks_table",
    "gather_facts",
    "measured_checks",
    "meet_nodes",
    "package_versions",
    "quick_checks",
    "require_fit",
    "timed",
]

__getattr__ = lazy_face(
    __name__,
    {
        "node_check": "measured_checks quick_checks timed",
        "node_facts": "gather_facts meet_nodes",
        "preflight": "Check FAIL INFO WARN checks_table require_fit",
        "probe": "package_versions",
    },
)
