"""The image's own PATH, as it was recorded when the image was built (its ENV SLIPWAY_PATH).

enroot starts commands through a login shell, which sets PATH anew; and whoever starts the launcher
may have any PATH. image_path.sh, beside this package, does the same for login shells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

RECORDED_PATH = "SLIPWAY_PATH"
#: What distributions' own /etc/profile put on PATH: nobody has chosen these.
SYSTEM_PATH = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/games:/usr/games"
)
#: Where the image's ENV still stands when the environment has been emptied: enroot's file, the
#: environment of a container's first process, and (known without the base) the image's own file.
COPIES = (
    Path("/etc/environment"),
    Path("/proc/1/environ"),
    Path("/opt/entrypoints/image.env"),
)


def recorded_path(env: Mapping[str, str], copies: tuple[Path, ...] = COPIES) -> str:
    """The image's PATH; "" outside of an image."""
    found = env.get(RECORDED_PATH, "")
    for copy in copies:
        if found:
            break
        try:
            text = copy.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            continue  # not this kind of container, or another user's process
        rows = text.replace("\0", "\n").split("\n")
        name = f"{RECORDED_PATH}="
        found = next((row[len(name) :] for row in rows if row.startswith(name)), "")
    return found


def merged_path(given: str, recorded: str) -> str:
    """A PATH with all of `recorded`.

    What else is in `given` was put there by somebody and stays in front, except for what every
    login shell has; a `given` that lacks nothing stays as it is.
    """
    entries, own = _entries(given), _entries(recorded)
    if set(own) <= set(entries):
        return given
    others = [entry for entry in entries if entry not in own]
    system = SYSTEM_PATH.split(":")
    front = [entry for entry in others if entry not in system]
    back = [entry for entry in others if entry in system]
    return ":".join([*front, recorded, *back])


def _entries(path: str) -> list[str]:
    """As a shell splits it: an empty last one is none."""
    parts = path.split(":")
    return parts[:-1] if parts[-1] == "" else parts


def with_image_path(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with the image's own folders on PATH."""
    path = merged_path(env.get("PATH", os.defpath), recorded_path(env))
    return {**env, "PATH": path}
