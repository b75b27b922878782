"""What the embedded base is made of, fetched and made once for all processes of tests.

    python -m tests.support.base_parts STATE

Leaves Debian's root file system and the base's wheels in STATE/cache. Each process of tests starts
with a copy; without one it makes its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from slipway.core import Project, silent
from slipway.local_base.rootfs import make_rootfs, rootfs_is_there
from slipway.matrix import load_matrix
from slipway.records import base_lock_key, load_locks
from slipway.wheels import fetch_wheels
from tests.support.clones import ROOT


def main(state: str) -> None:
    """Fetch and make them."""
    project = Project(ROOT, Path(state))
    if rootfs_is_there():
        make_rootfs(project, silent, project.logs / "rootfs.log")
    locks = load_locks(project).python
    for base in load_matrix(project.versions).bases:
        if base.registry is None:
            pins = locks[base_lock_key(base)].pins
            fetch_wheels(project, pins, base.facts.python, base.facts.architecture)


if __name__ == "__main__":
    main(sys.argv[1])
