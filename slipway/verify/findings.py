"""Lines of a job's log that nobody should have to read twice: errors and warnings. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

_COMPLAINT = re.compile(r"\b(ERROR|WARNING|WARN|CRITICAL|FATAL)\b|\w+Warning\b|No such file")


@dataclass(frozen=True)
class Allowed:
    """A complaint that is known. It fails again after `review_by`, so that it is looked at."""

    pattern: str  # regular expression, searched in the line
    because: str
    review_by: date


def load_allowed(path: Path) -> tuple[Allowed, ...]:
    """Read tests/image/allowed.yaml. Raises TypeError or re.error for an entry that is not one."""
    entries = YAML(typ="safe", pure=True).load(path) or []
    allowed = tuple(Allowed(**entry) for entry in entries)
    for entry in allowed:
        re.compile(entry.pattern)
    return allowed


def find_log_complaints(log: str, allowed: Sequence[Allowed], today: date) -> list[str]:
    """The lines of `log` that complain and that no entry of `allowed` still excuses."""
    complaints = []
    for line in log.splitlines():
        if not _COMPLAINT.search(line):
            continue
        known = [entry for entry in allowed if re.search(entry.pattern, line)]
        if not known:
            complaints.append(line)
        elif all(entry.review_by < today for entry in known):
            complaints.append(f"{line}  (allowed until {known[0].review_by}: {known[0].because})")
    return complaints


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


def dependency_problems(distributions: Distributions) -> set[str]:
    """One line for each requirement that is not met."""
    lines = set()
    for distribution in distributions.found:
        for text in distribution["requires"]:
            if problem := _unmet(text, distributions):
                lines.add(f"{distribution['name']} {distribution['version']} {problem}")
    return lines
