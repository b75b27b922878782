from __future__ import annotations

import json
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.verify.expectations import CheckedImage
from slipway.verify.findings import Distributions
from slipway.verify.plugin import RunPython

MODULES = """
import importlib, importlib.metadata, json, sys
modules = importlib.metadata.packages_distributions() if sys.version_info >= (3, 10) else {}
for name in json.loads(sys.argv[1]):
    for module, owners in modules.items():
        if name in [owner.lower().replace("_", "-").replace(".", "-") for owner in owners]:
            if module.isidentifier() and not module.startswith("_"):
                importlib.import_module(module)
print("IMPORTED")
"""


def asked(subject: CheckedImage) -> Iterator[Requirement]:
    """What add-ons without a version of their own ask for."""
    for addon in subject.cell["addons"]:
        if addon["version"] is None and addon["action"] == "install":
            yield from map(Requirement, addon["requirements"])


def test_every_package_that_was_asked_for_is_there_in_a_version_that_was_asked_for(
    packages: Distributions, subject: CheckedImage
) -> None:
    wrong = {
        str(wanted): packages.versions.get(canonicalize_name(wanted.name))
        for wanted in asked(subject)
        if not wanted.specifier.contains(
            packages.versions.get(canonicalize_name(wanted.name)) or "0.dev0", prereleases=True
        )
        or canonicalize_name(wanted.name) not in packages.versions
    }
    assert wrong == {}


def test_every_package_that_was_asked_for_can_be_imported(
    run_python: RunPython, subject: CheckedImage
) -> None:
    names = json.dumps([canonicalize_name(wanted.name) for wanted in asked(subject)])
    code = MODULES.replace("sys.argv[1]", repr(names))
    assert "IMPORTED" in run_python(code)
