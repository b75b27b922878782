"""What decides the local base, as one hash. Pure: a plan asks for it, without an engine."""

from __future__ import annotations

import hashlib

from slipway.core import Project, is_executable, sha256_file, tree_files
from slipway.local_base.rootfs import rootfs_id
from slipway.matrix import Base
from slipway.records import PythonLock


def local_base_id(project: Project, base: Base, lock: PythonLock | None) -> str:
    """Hash over everything that decides the base: images/local and the pinned wheels.

    Debian's own updates are not in it: a base stays what it is until the recipe changes.
    """
    pins = [f"{p.name} {p.version} {p.hashes}" for p in lock.pins] if lock else ["unlocked"]
    facts = f"{base.facts.torch} {base.facts.python} {base.family.python}"
    recipe = "\n".join([*_recipe_files(project), rootfs_id(project), *pins, facts])
    return f"sha256:{hashlib.sha256(recipe.encode()).hexdigest()}"


def _recipe_files(project: Project) -> list[str]:
    """Name and hash of each file of the recipe. What packages.txt lists is in `rootfs_id`, so that
    a comment in it moves nothing; a document is not part of what is made."""
    return [
        f"{path.name} {int(is_executable(path))} {sha256_file(path)}"
        for path in tree_files(project.local_base)
        if path.name != "packages.txt" and path.suffix != ".md"
    ]
