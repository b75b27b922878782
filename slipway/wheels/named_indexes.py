"""Package indexes by name: versions.yaml names them, each machine says where they are.

A lock is committed and read elsewhere, where the same packages may lie on another host behind
another login, so neither has an address in it.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys

from slipway.core import SlipwayError

SECTION = "slipway-index"
"""The section of pip's configuration that has an address under each name."""


def index_url(name: str) -> str:
    """The address of a named index on this machine. Raises SlipwayError where it has none."""
    url = os.environ.get(variable_of(name)) or _configured(name)
    if not url:
        raise SlipwayError(
            f"where the package index {name!r} of versions.yaml is, is not said on this machine",
            cure=f"Say it to pip (`pip config set {SECTION}.{name} URL`), or in "
            f"{variable_of(name)}.",
        )
    return url


def variable_of(name: str) -> str:
    """The variable that says where an index is, before pip's configuration is asked."""
    return f"SLIPWAY_INDEX_{name.upper().replace('-', '_')}"


@functools.cache
def _configured(name: str) -> str:
    # `pip config get` leaves out the file of PIP_CONFIG_FILE, which `list` has.
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key == f"{SECTION}.{name}":
            return str(ast.literal_eval(value))
    return ""
