"""enroot.conf: `KEY value` lines, of which the first for a key counts (NVIDIA/enroot:enroot.in)."""

from __future__ import annotations

import re
from collections.abc import Mapping

DATA_PATH = "ENROOT_DATA_PATH"
PATHS = ("ENROOT_RUNTIME_PATH", DATA_PATH, "ENROOT_CACHE_PATH", "ENROOT_TEMP_PATH")
SQUASH = "ENROOT_SQUASH_OPTIONS"
EXIT_ON_ERROR = "-exit-on-error"

EXPANSION = re.compile(r"\$(?:\([^)]*\)|\{[^}]*\}|\w+)")
"""What the user's shell fills in: $(id -u), ${HOME}, $UID."""

_WIDTH = 26  # where enroot's own file starts its values


def _line(key: str) -> re.Pattern[str]:
    return re.compile(rf"^[ \t]*(?P<off>#[ \t]*)?{key}(?:[ \t=]+(?P<value>.*?))?[ \t]*$", re.M)


def conf_value(text: str, key: str) -> str | None:
    """The value in force, None where the file leaves enroot's default."""
    for match in _line(key).finditer(text):
        if not match["off"]:
            return match["value"] or ""
    return None


def conf_with_values(text: str, values: Mapping[str, str | None]) -> str:
    """The file with these settings (None: enroot's default), each where its key is first named.

    In that place, because readers look there: a commented-out line further up would be what
    HyperPod's hyperpod-precheck.py finds. Squash options that somebody set keep, or get,
    -exit-on-error: without it mksquashfs leaves out what it cannot read and still succeeds.
    """
    for key, wanted in values.items():
        text = _with_value(text, key, wanted)
    options = conf_value(text, SQUASH)
    if options is not None and EXIT_ON_ERROR not in options.split():
        text = _with_value(text, SQUASH, f"{options} {EXIT_ON_ERROR}".strip())
    return text


def _with_value(text: str, key: str, wanted: str | None) -> str:
    line = f"{key:<{_WIDTH}} {wanted}" if wanted is not None else f"#{key}"
    pattern = _line(key)
    first = pattern.search(text)
    if first is None and wanted is None:
        return text
    if first is None:
        return text + ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    before, after = text[: first.start()], text[first.end() :]
    # A second active line would have no effect; left there, it would mislead.
    after = pattern.sub(lambda m: m[0] if m["off"] else f"#{m[0].lstrip()}", after)
    return before + line + after
