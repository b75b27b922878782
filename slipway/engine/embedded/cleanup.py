"""Bringing what is left of an embedded engine to rest: after `stop`, and after a crash.

kill -9 of dockerd leaves: pid files and sockets that name nobody, a containerd and its shims,
processes of BuildKit's steps (which run without a shim and so belong to nobody), and mounts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from slipway.core import (
    Mount,
    command_line,
    end_process,
    find_process,
    mounts_under,
    read_mount_table,
    read_pid,
)
from slipway.engine.embedded.layout import EmbeddedPaths
from slipway.engine.errors import EngineError


def remove_mounts(paths: EmbeddedPaths, *, grace_s: float = 10.0) -> None:
    """End every process of this engine, unmount what it mounted, remove sockets and pid files.

    Data, logs and configuration stay. Raises EngineError if something refuses to go.
    """
    for file, wait in ((paths.dockerd_pid, grace_s), (paths.containerd_pid, 10.0)):
        pid = read_pid(file)
        if pid is not None:
            _end(pid, paths.owns, wait)

    def lives_here(pid: int) -> bool:
        return _lives_in(pid, paths.data_root)

    for matches in (paths.owns, lives_here):
        for pid in list(find_process(matches)):
            _end(pid, matches, 2.0)
    mounted = read_mount_table()
    for mount in mounts_under(mounted, paths.data_root, paths.run):
        _unmount(str(mount.target))
    bound = any(mount.target == paths.data_root for mount in mounted)
    if paths.binds_data_root.exists() and bound:
        _unmount(str(paths.data_root))
    paths.dockerd_pid.unlink(missing_ok=True)
    paths.containerd_pid.unlink(missing_ok=True)
    if paths.run.exists():
        shutil.rmtree(paths.run)


def _unmount(point: str) -> None:
    done = subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"cannot unmount: {done.stderr.strip()}", where=point)


def _end(pid: int, matches: Callable[[int], bool], grace_s: float) -> None:
    if not end_process(pid, matches, grace_s=grace_s):
        raise EngineError(
            f"process {pid} ({' '.join(command_line(pid))}) does not end",
            cure=f"`ps -o stat,wchan {pid}` tells what it waits for.",
        )


def _lives_in(pid: int, data_root: Path) -> bool:
    """Whether the process's own root file system is a layer of this engine."""
    try:
        mounts = read_mount_table(Path(f"/proc/{pid}/mountinfo"))
    except OSError:
        return False
    return any(is_root_of_layer(mount, data_root) for mount in mounts)


def is_root_of_layer(mount: Mount, data_root: Path) -> bool:
    """Whether this mount of a process puts a layer of this engine on its "/".

    With many layers the driver's paths no longer fit a page, and it mounts with paths relative to
    data_root/overlay2 (moby/moby:daemon/graphdriver/overlay2/overlay.go): those count where that
    layer is there.
    """
    if mount.target != Path("/"):
        return False
    for layer in re.findall(r"(?:upper|lower)dir=([^,:]+)", ",".join(mount.options)):
        path = data_root / "overlay2" / layer
        if path.is_relative_to(data_root) and (Path(layer).is_absolute() or path.exists()):
            return True
    return False
