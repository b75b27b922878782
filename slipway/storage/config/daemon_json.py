"""dockerd's configuration file: read, and one key changed with all others left as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from slipway.errors import UsageError


def parse(text: str, path: Path) -> dict[str, Any]:
    """The settings. Raises UsageError with the line where the file is not a JSON object."""
    if not text.strip():
        return {}  # dockerd takes an empty file for an empty configuration
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"this is not JSON: {error.msg} (column {error.colno})",
            where=f"{path}:{error.lineno}",
            cure="Correct it by hand; nothing was changed. Two objects one after the other come "
            "from scripts that append to the file: merge them into one.",
        ) from error
    if not isinstance(config, dict):
        raise UsageError("this is JSON, but not an object", where=f"{path}:1")
    return config


def with_data_root(text: str, path: Path, root: Path | None) -> str:
    """The file with `data-root` set, or without it; other keys, order and indentation stay."""
    config = parse(text, path)
    config.pop("graph", None)  # its name before 17.05; two names for one thing stop the daemon
    if root is None:
        config.pop("data-root", None)
    else:
        config["data-root"] = str(root)
    return json.dumps(config, indent=_indent(text), ensure_ascii=False) + "\n"


def _indent(text: str) -> int | str:
    found = re.search(r"\n([ \t]+)\S", text)
    if found is None:
        return 2
    return found[1] if "\t" in found[1] else len(found[1])
