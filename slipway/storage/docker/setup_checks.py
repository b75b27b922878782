"""Set-ups of Docker that a move would break: told before anything is stopped.

Each of these changes where the data is, who owns it, or whose it is as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.core import UsageError, command_line, descends_from, find_process
from slipway.storage.docker.config_files import parse_flags, read_daemon_json
from slipway.storage.docker.daemon_process import same_namespace
from slipway.storage.docker.systemd import show_unit
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.text_files import read_text_file

_PLAIN_UNIT = {
    "RootDirectory": ("",),
    "RootImage": ("",),
    "User": ("", "root"),
    "DynamicUser": ("", "no"),
    "PrivateMounts": ("", "no"),
    "PrivateTmp": ("", "no"),
    "ProtectSystem": ("", "no"),
    "ProtectHome": ("", "no"),
    "ReadOnlyPaths": ("",),
    "InaccessiblePaths": ("",),
    "TemporaryFileSystem": ("",),
    "BindPaths": ("",),
    "BindReadOnlyPaths": ("",),
}
"""Settings of systemd.exec(5) that give a unit other files than we see, with their plain values."""
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


def userns_problem(security: Sequence[str], settings: Mapping[str, object]) -> StorageError | None:
    """User namespaces: the data is in a folder UID.GID of data-root, owned by shifted ids."""
    remapped = any(option.startswith("name=userns") for option in security)
    if not remapped and not settings.get("userns-remap"):
        return None
    return StorageError(
        "this Docker maps its users into user namespaces (userns-remap): its data is in a folder "
        "of data-root for these ids, which only that mapping can use",
        where="userns-remap",
        cure="Move it by Docker's own means: take userns-remap out, move, and put it in again.",
    )


def shared_daemon_problem(
    machine: Machine, pid: int | None, config: Path, data_root: Path, containerd: Path | None
) -> StorageError | None:
    """Another dockerd that reads the same file, or uses the same data or containerd.

    A child of this one is none: between fork and exec it has the command line of its parent.
    """
    for other in find_process(lambda p: Path((command_line(p) or [""])[0]).name == "dockerd"):
        own = pid is not None and (other == pid or descends_from(other, pid))
        if own or not _sees_our_files(other):
            continue
        theirs, settings = _settings_of(other, machine)
        root = settings.get("data-root")
        shared = {
            "its configuration file": theirs == config and config.exists(),
            "its data-root": root and Path(str(root)).resolve().is_relative_to(data_root),
            "its containerd": containerd and settings.get("containerd") == str(containerd),
        }
        if what := " and ".join(name for name, same in shared.items() if same):
            return StorageError(
                f"a second dockerd (pid {other}) shares {what} with this one",
                where=str(config),
                cure="Give each daemon a configuration file, a data-root and a containerd of its "
                "own, or stop the second one for good; then run this again.",
            )
    return None


def _settings_of(pid: int, machine: Machine) -> tuple[Path, Mapping[str, object]]:
    """A dockerd's configuration file, and what it and the command line say."""
    flags = parse_flags(command_line(pid)[1:])
    path = Path(flags.get("config-file") or machine.daemon_json).resolve()
    try:
        return path, {**read_daemon_json(path), **flags}
    except UsageError:  # written since the daemon was started
        return path, flags


def _sees_our_files(pid: int) -> bool:
    try:
        return same_namespace(pid)
    except OSError:  # it ended, or belongs to somebody else
        return False


def unit_problem(*units: str) -> StorageError | None:
    """A unit that systemd gives other files, or other rights, than the machine has."""
    for unit in units:
        shown = show_unit(unit, *_PLAIN_UNIT)
        odd = [
            f"{name}={value}"
            for name, value in shown.items()
            if name in _PLAIN_UNIT and value not in _PLAIN_UNIT[name]
        ]
        if odd:
            return StorageError(
                f"the unit gives the daemon files or rights of its own: {', '.join(odd)}",
                where=unit,
                cure=f"Take them out (`systemctl edit {unit}`), restart it, and run this again.",
            )
    return None


def unit_command(shown: Mapping[str, str], machine: Machine) -> list[str]:
    """A unit's command with its variables filled in, as systemd.service(5) does it."""
    text = shown.get("ExecStart", "").partition("argv[]=")[2].partition(" ;")[0]
    values: dict[str, str] = {}
    for word in _words(shown.get("Environment", "")):
        name, _, value = word.partition("=")
        values[name] = value
    for file in re.findall(r"(\S+) \(ignore_errors=\w+\)", shown.get("EnvironmentFiles", "")):
        for line in read_text_file(machine.at(file)).text.splitlines():
            name, given, value = line.strip().partition("=")
            if given and not name.startswith(("#", ";")):
                values[name.strip()] = " ".join(_words(value))
    words: list[str] = []
    for word in text.split():
        whole = _VARIABLE.fullmatch(word)
        if whole and whole[2]:  # $NAME alone becomes as many words as it has
            words += values.get(whole[2], "").split()
        else:
            words.append(_VARIABLE.sub(lambda m: values.get(m[1] or m[2], ""), word))
    return words


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return text.split()
