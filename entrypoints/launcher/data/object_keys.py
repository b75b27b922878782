"""Keys of S3 and names of files: which go with each other, and which do not. Decided here only.

An object's key is any UTF-8 text up to 1024 bytes; `/` means nothing to S3. A file's path has
rules, and what is in a bucket may have been put there by anyone. So every key becomes a path below
the target here, or is refused by its name, before anything is fetched:

  p//a, /a           the empty parts go: p/a, a
  a/                 a folder marker, as consoles write it: no file
  . and ..           refused, as are control characters (a newline is one)
  > 255 bytes        refused: no file system of Linux has such a name
  .launch-*          refused: the launcher keeps its own notes under such names
  a beside a/b       refused, and so are two keys that would be one file
  a link out of it   refused: whatever links are in the target, nothing is written elsewhere
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from launcher.causes import FETCH_SHORT, LaunchError

#: Names of our own notes and locks begin so, in every directory that is fetched or uploaded.
OWN_PREFIX = ".launch-"
NAME_BYTES = 255
KEY_BYTES = 1024
PATH_BYTES = 4095  # PATH_MAX less its NUL


def shown(name: str) -> str:
    """A key or file name for people: one line, whatever is in it, not endless."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def is_folder_marker(key: str) -> bool:
    """Whether a key stands for a folder: it ends with a slash, or is nothing but slashes."""
    return key.endswith("/") or not key


def key_path(key: str) -> str:
    """The relative path of an object's file; LaunchError that names the key where there is none."""
    parts = [part for part in key.split("/") if part]
    why = "it names no file" if not parts or is_folder_marker(key) else ""
    for part in parts:
        why = why or _fault_of_name(part)
    if why:
        raise _refused(key, why)
    return "/".join(parts)


def fault_of_file_name(path: str) -> str:
    """Why a file (its path below the uploaded directory) can not be an object; "" when it can.

    What could not be fetched again is not uploaded either.
    """
    if len(path.encode("utf-8", "surrogateescape")) > KEY_BYTES:
        return f"its path has more than {KEY_BYTES} bytes"
    return next(filter(None, map(_fault_of_name, path.split("/"))), "")


def map_keys(keys: Iterable[str], root: Path) -> dict[str, Path]:
    """Every key's file below `root`, folder markers left out. LaunchError for what has none.

    `root` itself may be a link; below it, links are followed as far as they stay below it.
    """
    top = Path(os.path.realpath(root))
    owners: dict[str, str] = {}
    for key in keys:
        if is_folder_marker(key):
            continue
        path = key_path(key)
        if path in owners:
            raise _refused(key, f"it would be the same file as '{shown(owners[path])}'")
        owners[path] = key
    checked: dict[str, Path] = {"": top}
    reached: dict[Path, str] = {}
    for path, key in owners.items():
        _refuse_link_out(path, key, top, checked)
        other = reached.setdefault(checked[path], key)
        if other != key:
            raise _refused(key, f"by a link it would be the same file as '{shown(other)}'")
        if checked[path].is_dir():
            raise _refused(key, "there is a directory in its place in the target")
        if len(os.fsencode(root / path)) > PATH_BYTES:
            raise _refused(key, f"its path would have more than {PATH_BYTES} bytes")
    for place, key in reached.items():
        above = next((parent for parent in place.parents if parent in reached), None)
        if above is not None:
            raise _refused(
                key,
                f"'{shown(reached[above])}' is an object, too, and can not be a file and a "
                "directory at once",
            )
    return {key: root / path for path, key in owners.items()}


def _refuse_link_out(path: str, key: str, top: Path, checked: dict[str, Path]) -> None:
    """Look at each directory of the path once; `checked` holds where each really is."""
    parent = ""
    for part in path.split("/"):
        current = f"{parent}/{part}" if parent else part
        if current not in checked:
            place = checked[parent] / part
            real = Path(os.path.realpath(place)) if place.is_symlink() else place
            if real != top and top not in real.parents:
                raise _refused(key, f"{shown(current)} is a link out of the target, to {real}")
            checked[current] = real
        parent = current


def _fault_of_name(name: str) -> str:
    if name in (".", ".."):
        return f"{name!r} in it would lead elsewhere"
    if name.startswith(OWN_PREFIX):
        return f"names that begin with {OWN_PREFIX} are the launcher's own notes"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "it is not UTF-8"
    if any(map(_is_control, name)):
        return "it holds a control character"
    if len(name.encode()) > NAME_BYTES:
        return f"a name in it has more than {NAME_BYTES} bytes"
    return ""


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc"


def _refused(key: str, why: str) -> LaunchError:
    return LaunchError(
        f"the key '{shown(key)}' can not become a file: {why}. Rename it, or give a prefix "
        "without it",
        code=FETCH_SHORT,
        kind="FetchError",
    )
