"""What Python packages a base has, as its own interpreter sees them."""

from __future__ import annotations

import json

from slipway.core import SlipwayError
from slipway.engine import BARE, Engine, find_image_id, run_once

_LIST_PACKAGES = """
import importlib.metadata, json
packages = {}
for distribution in importlib.metadata.distributions():
    name = distribution.metadata["Name"]
    if name:
        packages.setdefault(name, distribution.version)
print(json.dumps(packages))
"""


def read_packages(engine: Engine, reference: str, interpreter: str) -> dict[str, str] | None:
    """The Python distributions inside an image that the engine has, None where it does not.

    Raises SlipwayError where the interpreter does not run in it.
    """
    if find_image_id(engine, reference) is None:
        return None
    done = run_once(engine, reference, [interpreter, "-c", _LIST_PACKAGES], BARE, timeout_s=300)
    if done.exit_code != 0:
        raise SlipwayError(
            f"{interpreter} does not run in {reference}: {done.stderr.decode(errors='replace')}",
            cure="Correct `python` of the base's family in versions.yaml.",
        )
    return dict(sorted(json.loads(done.stdout).items()))
