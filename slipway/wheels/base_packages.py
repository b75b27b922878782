"""What Python packages a base has, as its own interpreter sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from slipway import engine
from slipway.core import SlipwayError

if TYPE_CHECKING:
    from slipway.engine import Engine

_LIST_PACKAGES = """
import importlib.metadata, json
packages = {}
for distribution in importlib.metadata.distributions():
    name = distribution.metadata["Name"]
    if name:
        packages.setdefault(name, distribution.version)
print(json.dumps(packages))
"""


def read_packages(running: Engine, reference: str, interpreter: str) -> dict[str, str] | None:
    """The Python distributions inside an image that the engine has, None where it does not.

    Raises SlipwayError where the interpreter does not run in it.
    """
    if engine.find_image_id(running, reference) is None:
        return None
    command = [interpreter, "-c", _LIST_PACKAGES]
    done = engine.run_once(running, reference, command, engine.BARE, timeout_s=300)
    if done.exit_code != 0:
        raise SlipwayError(
            f"{interpreter} does not run in {reference}: {done.stderr.decode(errors='replace')}",
            cure="Correct `python` of the base's family in versions.yaml.",
        )
    return dict(sorted(json.loads(done.stdout).items()))
