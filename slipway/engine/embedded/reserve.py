"""A few megabytes kept back on the embedded engine's disk, to be able to tidy up a full one.

BuildKit deletes a cache record by writing to its databases. On a disk without one free byte it
keeps the very context that filled it, and says nothing; the reserve is what lets go of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

from slipway.core import disk_space

_NAME = "slipway-reserve"
_SIZE = 8 << 20
_WORTH_IT = 8 * _SIZE  # on less free space, the builds need every byte more

# An uploaded context has a URL that no other build will ever name (moby/moby:
# builder/builder-next/builder.go, buildContextURL): once unused, its record is of no use.
_CONTEXT = "http url http://build-context-"


def reserve_space(data_root: Path) -> None:
    """Set the space aside, unless it is there or the disk is nearly full."""
    path = data_root / _NAME
    if path.exists() or disk_space(data_root).free < _WORTH_IT:
        return
    # Without a reserve a full disk takes a person to tidy up; nothing else depends on it.
    with suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _SIZE)


def release_space(client: docker.DockerClient, data_root: Path) -> None:
    """After ENOSPC: remove the contexts that builds uploaded and no build uses, then reserve again.

    For an engine of our own only; whatever a build runs on now is left alone.
    """
    import requests  # with a client at hand both are loaded; a status takes neither
    from docker.errors import DockerException

    api = client.api
    (data_root / _NAME).unlink(missing_ok=True)
    # Best effort: the caller is about to raise the error that matters, the full disk.
    with suppress(DockerException, requests.RequestException):
        for record in api.df().get("BuildCache") or ():
            if record["Description"].startswith(_CONTEXT) and not record["InUse"]:
                by_id: Any = {"id": [record["ID"]]}  # not in the SDK's list, but in the API's
                api.prune_builds(filters=by_id, all=True)
    reserve_space(data_root)
