"""Host names: Slurm's compressed lists, and the order that people count in."""

from __future__ import annotations

import re

from launcher.causes import LaunchUsageError

_DIGITS = re.compile(r"(\d+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")

#: Far above any Slurm cluster; keeps a damaged list from filling the memory.
MAX_HOSTS = 65536


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts algo-2 before algo-10.

    SageMaker lists hosts lexicographically (algo-1, algo-10, algo-2), so from ten nodes on a
    position in its list is not the number in the name.
    """
    parts = [part for part in _DIGITS.split(name) if part]
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def expand_hostlist(text: str) -> list[str]:
    """Expand a Slurm node list such as ``a[1-3,07-09]-b,c``; order and padding are kept.

    The format is that of ``scontrol show hostnames`` (slurm.conf and hostlist in SchedMD's
    documentation), which does not exist inside a container. Several brackets in one name multiply,
    the last one varying fastest. Raises UsageError for a list that is not well formed.
    """
    hosts: list[str] = []
    for pattern in _split(text):
        hosts.extend(_expand_one(pattern, text))
        if len(hosts) > MAX_HOSTS:
            raise LaunchUsageError(f"node list {text[:80]!r} names more than {MAX_HOSTS} hosts")
    if not hosts:
        raise LaunchUsageError("the Slurm node list is empty")
    return hosts


def _split(text: str) -> list[str]:
    """Cut at the commas outside brackets."""
    parts, depth, current = [], 0, ""
    for char in text.strip():
        depth += (char == "[") - (char == "]")
        if depth not in (0, 1):
            raise LaunchUsageError(f"node list {text!r} has unbalanced brackets")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    if depth:
        raise LaunchUsageError(f"node list {text!r} has unbalanced brackets")
    parts.append(current)
    if parts == [""]:
        return []
    if any(not part or part.isspace() for part in parts):
        raise LaunchUsageError(f"node list {text!r} has an empty name")
    return parts


def _expand_one(pattern: str, whole: str) -> list[str]:
    names = [""]
    for index, piece in enumerate(re.split(r"[\[\]]", pattern)):
        choices = [piece] if index % 2 == 0 else _ranges(piece, whole)
        if len(names) * len(choices) > MAX_HOSTS:
            raise LaunchUsageError(f"node list {whole[:80]!r} names more than {MAX_HOSTS} hosts")
        names = [name + choice for name in names for choice in choices]
    return names


def _ranges(text: str, whole: str) -> list[str]:
    numbers: list[str] = []
    for item in text.split(","):
        match = _RANGE.fullmatch(item)
        if not match:
            raise LaunchUsageError(f"node list {whole!r}: {item!r} is not a number or a range")
        low, high = match.group(1), match.group(2) or match.group(1)
        if int(high) < int(low) or int(high) - int(low) > MAX_HOSTS:
            raise LaunchUsageError(
                f"node list {whole[:80]!r}: range {item!r} runs backwards or too far"
            )
        numbers.extend(str(n).zfill(len(low)) for n in range(int(low), int(high) + 1))
    return numbers
