"""What `pip check` finds, from metadata alone: not every image has a pip. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Distributions:
    """What slipway.verify.inside.distributions prints."""

    environment: Mapping[str, str]  # PEP 508 marker values of the image's Python
    found: Sequence[Mapping[str, Any]]  # name, version, requires

    @property
    def versions(self) -> dict[str, str]:
        """Canonical name -> version; of two copies the one that Python imports."""
        versions: dict[str, str] = {}
        for distribution in self.found:
            versions.setdefault(canonicalize_name(distribution["name"]), distribution["version"])
        return versions

    @property
    def twice(self) -> set[str]:
        """Distributions whose metadata is there more than once: an upgrade that left the old."""
        names = [canonicalize_name(distribution["name"]) for distribution in self.found]
        return {name for name in names if names.count(name) > 1}


def _unmet(text: str, distributions: Distributions) -> str | None:
    try:
        requirement = Requirement(text)
        # Extras are asked for by others, and checked where they are.
        marker = requirement.marker
        if marker and not marker.evaluate({**distributions.environment, "extra": ""}):
            return None
    except (InvalidRequirement, UndefinedEnvironmentName):
        return f"requires {text!r}, which is not a requirement"
    have = distributions.versions.get(canonicalize_name(requirement.name))
    if have is None:
        return f"requires {requirement.name}, which is not installed"
    if requirement.specifier.contains(have, prereleases=True):
        return None
    return f"requires {requirement.name}{requirement.specifier}, and {have} is installed"


def problems(distributions: Distributions) -> set[str]:
    """One line for each requirement that is not met."""
    lines = set()
    for distribution in distributions.found:
        for text in distribution["requires"]:
            if problem := _unmet(text, distributions):
                lines.add(f"{distribution['name']} {distribution['version']} {problem}")
    return lines
