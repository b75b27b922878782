"""Paths of the old place inside Docker's own records of containers.

dockerd keeps the absolute path of each named volume in a container's config.v2.json and looks at
it when the container starts (moby/moby:volume/mounts/mounts.go, MountPoint.Setup, "error evaluating
symlinks from mount source"): once the old data is deleted, such a container does not start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slipway.files import write_atomic
from slipway.storage.errors import StorageError

_FIELDS = ("LogPath", "HostnamePath", "HostsPath", "ResolvConfPath")


def repoint(data_root: Path, old: Path, new: Path) -> int:
    """Have the containers in `data_root` know `new` where they know `old`; returns how many did.

    What a person gave as a bind mount stays as it is. Again: nothing changes.
    """
    changed = 0
    for path in sorted(data_root.glob("containers/*/config.v2.json")):
        try:
            record = json.loads(path.read_bytes())
            if _repoint(record, old, new):
                text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
                write_atomic(path, text, mode=path.stat().st_mode & 0o7777)
                changed += 1
        except (ValueError, AttributeError) as error:
            raise StorageError(f"not a container's record: {error}", where=str(path)) from error
    return changed


def _repoint(record: dict[str, Any], old: Path, new: Path) -> bool:
    changed = False
    named = [point for point in (record.get("MountPoints") or {}).values() if point.get("Name")]
    for holder, field in [(record, field) for field in _FIELDS] + [(p, "Source") for p in named]:
        value = holder.get(field)
        if isinstance(value, str) and value.startswith(f"{old}/"):
            holder[field] = f"{new}{value[len(str(old)) :]}"
            changed = True
    return changed
