"""What the command line of a running daemon says, as Go's pflag reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
_KEYS = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "host-gateway-ip": "host-gateway-ips",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
_MERGED = {"runtimes"}  # the one key that may be given in both places


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
