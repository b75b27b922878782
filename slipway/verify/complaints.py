"""Lines of a job's log that nobody should have to read twice: errors and warnings. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

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


def complaints(log: str, allowed: Sequence[Allowed], today: date) -> list[str]:
    """The lines of `log` that complain and that no entry of `allowed` still excuses."""
    found = []
    for line in log.splitlines():
        if not _COMPLAINT.search(line):
            continue
        known = [entry for entry in allowed if re.search(entry.pattern, line)]
        if not known:
            found.append(line)
        elif all(entry.review_by < today for entry in known):
            found.append(f"{line}  (allowed until {known[0].review_by}: {known[0].because})")
    return found
