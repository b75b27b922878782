"""What dockerd and containerd are told: in their files, and on their command lines.

Of a file one key is changed, and all others are left as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.core import UsageError
from slipway.storage.errors import StorageError
from slipway.storage.text_files import read_text_file

DEFAULT_ROOT = "/var/lib/containerd"
_ROOT = re.compile(r"""^[ \t]*root[ \t]*=[ \t]*(?:"([^"]*)"|'([^']*)')[ \t]*(?:#.*)?$""", re.M)
_COMMENTED = re.compile(r"^[ \t]*#[ \t]*root[ \t]*=.*$", re.M)
_VERSION = re.compile(r"^[ \t]*version[ \t]*=.*$", re.M)
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_TABLE = re.compile(r"^[ \t]*\[", re.M)


_SHORT = {
    "g": "data-root",
    "H": "host",
    "D": "debug",
    "l": "log-level",
    "G": "group",
    "s": "storage-driver",
    "b": "bridge",
    "p": "pidfile",
    "c": "config",
    "a": "address",
}

# Flags whose key in daemon.json is spelled otherwise
# (moby/moby:cmd/dockerd/config.go, opts.NewNamed...).
_PLURAL = (
    *("authorization-plugin", "cdi-spec-dir", "default-address-pool", "default-network-opt"),
    *("default-ulimit", "dns-opt", "exec-opt", "feature", "host", "host-gateway-ip", "label"),
    *("log-opt", "node-generic-resource", "registry-mirror", "storage-opt"),
)
_KEYS = {
    "add-runtime": "runtimes",
    "graph": "data-root",
    "insecure-registry": "insecure-registries",
    **{name: f"{name}s" for name in _PLURAL},
}
_MERGED = {"runtimes"}  # the one key that may be given in both places


def parse_daemon_json(text: str, path: Path) -> dict[str, Any]:
    """The settings. Raises UsageError with the line where the file is not a JSON object."""
    if not text.strip():
        return {}  # dockerd takes an empty file for an empty configuration
    try:
        config = json.loads(text, parse_float=_number, parse_constant=_number)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"this is not JSON: {error.msg} (column {error.colno})",
            where=f"{path}:{error.lineno}",
            cure="Correct it by hand; nothing was changed. Two objects one after the other come "
            "from scripts that append to the file: merge them into one.",
        ) from error
    except RecursionError as error:
        raise UsageError("this is nested too deeply", where=f"{path}:1") from error
    except ValueError as error:
        raise UsageError(
            f"this has a number that dockerd cannot read: {str(error).split(';')[0]}",
            where=f"{path}:1",
            cure="Correct it by hand; nothing was changed.",
        ) from error
    if not isinstance(config, dict):
        raise UsageError("this is JSON, but not an object", where=f"{path}:1")
    return config


def _number(text: str) -> float:
    """A number as JSON knows it: Python takes NaN and writes Infinity, which stop dockerd."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text[:40])
    return value


def read_daemon_json(path: Path) -> dict[str, Any]:
    """The settings of the file there; none where there is no file. Raises UsageError."""
    return parse_daemon_json(read_text_file(path, wide=True).text, path)


def with_data_root(text: str, path: Path, root: Path | None) -> str:
    """The file with `data-root` set, or without it; other keys, order and indentation stay."""
    config = parse_daemon_json(text, path)
    config.pop("graph", None)  # its name before 17.05; two names for one thing stop the daemon
    if root is None:
        config.pop("data-root", None)
    else:
        config["data-root"] = str(root)
    written = json.dumps(config, indent=_indent(text), ensure_ascii=False) + "\n"
    # Halves of characters that the file has as escapes; other bytes of the file are DC80 to DCFF.
    return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", written)


def _indent(text: str) -> int | str:
    match = re.search(r"\n([ \t]+)\S", text)
    if match is None:
        return 2
    return match[1] if "\t" in match[1] else len(match[1])


def _head(text: str) -> str:
    """What comes before the first table: only there `root` is containerd's own."""
    table = _TABLE.search(text)
    return text[: table.start()] if table else text


def configured_root(text: str) -> str | None:
    """The root that the file (or `containerd config dump`) names, None where it names none."""
    match = _ROOT.search(_head(text))
    return (match[1] or match[2]) if match else None


def with_containerd_root(text: str, root: Path) -> str:
    """The file with its root set, whether it had a line, a commented-out one, or none.

    Packages ship the line commented out, which a plain substitution of `root =` misses
    (awslabs/awsome-distributed-ai#914). All other lines stay as they are.
    """
    head = _head(text)
    rest = text[len(head) :]
    line = f"root = {json.dumps(str(root))}"
    if len(_ROOT.findall(head)) > 1:
        raise StorageError("containerd's configuration names two roots", cure="Remove one of them.")
    for pattern in (_ROOT, _COMMENTED):
        if match := pattern.search(head):
            return head[: match.start()] + line + head[match.end() :] + rest
    if match := _VERSION.search(head):
        return head[: match.end()] + "\n" + line + head[match.end() :] + rest
    # Without a version line the file is version 1, unless it is new: then say which we write.
    return ("version = 2\n" if not text.strip() else "") + line + "\n" + text


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Flag name -> value ("" for a flag without one); the last one counts."""
    flags: dict[str, str] = {}
    for at, word in enumerate(arguments):
        following = arguments[at + 1] if at + 1 < len(arguments) else ""
        value_follows = "" if following.startswith("-") else following
        if word.startswith("--") and len(word) > 2:
            name, given, value = word[2:].partition("=")
            flags[name] = value if given else value_follows
        elif word.startswith("-") and len(word) > 1 and word[1] in _SHORT:
            rest = word[2:].removeprefix("=")
            flags[_SHORT[word[1]]] = rest or value_follows
    return flags


def conflicting_flags(config: Mapping[str, Any], flags: Mapping[str, str]) -> tuple[str, ...]:
    """Keys of daemon.json that are flags as well: dockerd refuses to start with any of them.

    The rule is moby/moby:daemon/config/config.go, findConfigurationConflicts.
    """
    keys = {_KEYS.get(name, name) for name in flags}
    return tuple(sorted(key for key in config if key in keys and key not in _MERGED))
