"""What decides the bytes of a wheel that is built from an sdist, beside the sdist itself.

The build id of an image counts it for the sdists that the image has, and the cache of built wheels
is keyed by it, so that the two agree on when a wheel is another wheel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from slipway.core import Project, sha256_file
from slipway.records.locks import Pin

BUILD_ENVIRONMENT = {
    # 1980-01-01, the oldest time that a zip can hold: the same sdist gives the same wheel.
    "SOURCE_DATE_EPOCH": "315532800",
    # DeepSpeed compiles its operators at first use; a wheel with them would fit one torch only
    # (deepspeedai/DeepSpeed:setup.py).
    "DS_BUILD_OPS": "0",
    # Its requirements go through sets on their way into the metadata.
    "PYTHONHASHSEED": "0",
}


def build_script(project: Project) -> Path:
    """The script that builds a wheel inside a container of the base."""
    return project.installer.with_name("build_wheel.py")


def build_recipe_key(project: Project, requirements: Iterable[Pin]) -> str:
    """Hex digest over the build requirements, the environment and the script."""
    digest = hashlib.sha256()
    for pin in requirements:
        digest.update(f"{pin.name} {pin.version} {' '.join(pin.hashes)}\n".encode())
    digest.update(repr(sorted(BUILD_ENVIRONMENT.items())).encode())
    digest.update(sha256_file(build_script(project)).encode())
    return digest.hexdigest()
