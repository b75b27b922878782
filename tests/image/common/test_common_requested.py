from __future__ import annotations

import json
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from testinfra.host import Host  # type: ignore[import-untyped]

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


def asked(subject: CheckedImage, packages: Distributions) -> Iterator[Requirement]:
    """What the add-ons ask for on this Python, and what the base is said to carry."""
    for addon in subject.cell["addons"]:
        for wanted in map(Requirement, addon["requirements"]):
            if wanted.marker is None or wanted.marker.evaluate({**packages.environment}):
                yield wanted
        tool = addon["name"] in subject.tools  # a binary, which no distribution is named after
        if addon["action"] == "keep" and addon["version"] and not tool:
            yield Requirement(f"{addon['name']}=={addon['version']}")


def test_every_package_that_was_asked_for_is_there_in_a_version_that_was_asked_for(
    packages: Distributions, subject: CheckedImage
) -> None:
    wrong = {
        str(wanted): packages.versions.get(canonicalize_name(wanted.name))
        for wanted in asked(subject, packages)
        if not wanted.specifier.contains(
            packages.versions.get(canonicalize_name(wanted.name)) or "0.dev0", prereleases=True
        )
        or canonicalize_name(wanted.name) not in packages.versions
    }
    assert wrong == {}


def test_every_package_that_was_asked_for_can_be_imported(
    run_python: RunPython, packages: Distributions, subject: CheckedImage
) -> None:
    wanted = asked(subject, packages)
    names = json.dumps([canonicalize_name(requirement.name) for requirement in wanted])
    code = MODULES.replace("sys.argv[1]", repr(names))
    assert "IMPORTED" in run_python(code)


def test_every_tool_is_the_locked_file_in_its_place(host: Host, subject: CheckedImage) -> None:
    there = {name: host.file(tool.path).sha256sum for name, tool in subject.tools.items()}
    assert there == {name: tool.sha256 for name, tool in subject.tools.items()}
