"""Which of two versions is the later one, by the rules of who wrote them.

Python: packaging. Debian: deb-version(7). rpm: rpm.org, "RPM Version Comparison" (rpmvercmp).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from packaging.version import InvalidVersion, Version


def compare_versions(kind: str, first: str, second: str) -> int | None:
    """-1, 0 or 1 as `first` is earlier than, as late as or later than `second`.

    `kind`: "python", "dpkg" or "rpm". None where the rules do not tell.
    """
    if first == second:
        return 0
    if kind == "python":
        try:
            return _sign(Version(first), Version(second))
        except InvalidVersion:
            return None
    if kind == "dpkg":
        return _compare_parts(first, second, _debian_part)
    if kind == "rpm":
        return _compare_parts(first, second, _rpm_part)
    return None


def _sign(first: Version | int | str, second: Version | int | str) -> int:
    if first == second:
        return 0
    return 1 if first > second else -1  # type: ignore[operator]


def _compare_parts(first: str, second: str, compare: Callable[[str, str], int]) -> int:
    """[epoch:]version[-revision], part by part."""
    left, right = _parts(first), _parts(second)
    epochs = _sign(left[0], right[0])
    return epochs or compare(left[1], right[1]) or compare(left[2], right[2])


def _parts(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch), upstream if dash else rest, revision if dash else ""


def _debian_part(first: str, second: str) -> int:
    """Text and numbers in turn; a tilde comes before the end, letters before other signs."""
    while first or second:
        left, right = _text_ahead(first), _text_ahead(second)
        for at in range(max(len(left), len(right))):
            order = _sign(_debian_order(left[at : at + 1]), _debian_order(right[at : at + 1]))
            if order:
                return order
        first, second = first[len(left) :], second[len(right) :]
        one, two = _digits_ahead(first), _digits_ahead(second)
        if order := _sign(int(one or 0), int(two or 0)):
            return order
        first, second = first[len(one) :], second[len(two) :]
    return 0


def _text_ahead(text: str) -> str:
    match = re.match(r"[^0-9]*", text)
    return match[0] if match else ""


def _digits_ahead(text: str) -> str:
    match = re.match(r"[0-9]*", text)
    return match[0] if match else ""


def _debian_order(sign: str) -> int:
    if not sign:
        return 0
    if sign == "~":
        return -1
    return ord(sign) if sign.isalpha() else ord(sign) + 256


def _rpm_part(first: str, second: str) -> int:
    """Stretches of digits or letters; a tilde comes before all, a caret after the end alone."""
    left = re.findall(r"[0-9]+|[A-Za-z]+|[~^]", first)
    right = re.findall(r"[0-9]+|[A-Za-z]+|[~^]", second)
    for at in range(max(len(left), len(right))):
        one = left[at] if at < len(left) else ""
        two = right[at] if at < len(right) else ""
        if one == two:
            continue
        ranks = [_rpm_rank(one), _rpm_rank(two)]
        if ranks[0] != ranks[1]:
            return _sign(ranks[0], ranks[1])
        if order := _sign(int(one), int(two)) if one.isdigit() else _sign(one, two):
            return order
    return 0


def _rpm_rank(part: str) -> int:
    """Tilde, end, caret, letters, digits: earlier ones first."""
    if part == "~":
        return 0
    if part in ("", "^"):
        return 1 if not part else 2
    return 4 if part.isdigit() else 3
