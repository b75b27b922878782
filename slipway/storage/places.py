"""Each kind of data with the place where it is: Docker's, containerd's, enroot's, Slipway's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.engine.client import Engine
from slipway.engine.sdk import sdk_errors
from slipway.errors import SlipwayError
from slipway.report.console import human_bytes
from slipway.storage.config import enroot_conf
from slipway.storage.copying.trees import measure
from slipway.storage.daemons import subject
from slipway.storage.daemons.subject import Subject
from slipway.storage.disks import mounts, target
from slipway.storage.disks.candidates import Candidate
from slipway.storage.disks.mounts import Mount
from slipway.storage.disks.profiles import Places
from slipway.storage.errors import StorageError
from slipway.storage.moving import Room

_EXPANSION = re.compile(r"\$(?:\{|\(|[A-Za-z])")


@dataclass(frozen=True)
class Place:
    """One kind of data. `used` is in bytes, None where only root may look.

    `better` is where it would be better off, with the reason; where it is fine, only the reason.
    """

    what: str
    path: Path
    note: str
    device: str
    file_system: str
    used: int | None
    free: int
    better: Path | None
    reason: str

    def row(self) -> tuple[str, ...]:
        """For a table."""
        used = "?" if self.used is None else human_bytes(self.used)
        name = f"{self.what} ({self.note})" if self.note else self.what
        disk = f"{self.device} {self.file_system}"
        better = f"{self.better}: {self.reason}" if self.better else self.reason
        return (name, str(self.path), disk, used, human_bytes(self.free), better)


Wanted = tuple[str, Path, str, int | None, str]
"""What, where, a note, bytes used, and its place below a better disk."""


def of_docker(found: Subject, room: Room) -> Iterator[Wanted]:
    """What dockerd and a separate containerd keep."""
    store, cache = "stopped", None
    if found.running:
        try:
            connected = subject.engine_of(found, room.project)
        except SlipwayError as error:
            store = error.what
        else:
            try:
                driver = str(connected.client.api.info()["Driver"])
                where = "containerd image store" if connected.containerd_store else "graph driver"
                store = f"{where}, {driver}"
                cache = _build_cache(connected)
            finally:
                connected.close()
    if found.embedded:
        below = str(Places(Path("/")).embedded(room.project.engine)).lstrip("/")
        yield ("embedded engine", found.data_root, store, _used(found.data_root), below)
    else:
        yield (
            "docker data-root",
            found.data_root,
            store,
            _used(found.data_root),
            "docker/data-root",
        )
    if found.containerd:
        root = found.containerd.root
        users = ", ".join(found.containerd.others)
        note = f"also used by {users}" if users else ""
        yield ("containerd root", root, note, _used(root), "containerd/data-root")
    tmp = found.tmp or found.data_root / "tmp"
    yield ("docker tmp", tmp, "" if found.tmp else "in data-root", _used(tmp), "docker/tmp")
    cache_path = found.data_root / "buildkit"
    if cache is not None:
        yield ("BuildKit cache", cache_path, "in data-root", cache, "docker/data-root")


def _build_cache(connected: Engine) -> int:
    with sdk_errors(connected, "measuring the build cache"):
        records = connected.client.api.df().get("BuildCache") or ()
    return sum(int(record["Size"]) for record in records)


def of_enroot(room: Room) -> Iterator[Wanted]:
    """enroot's four folders, where enroot is configured."""
    if not room.machine.enroot_conf.exists():
        return
    text = room.machine.enroot_conf.read_text()
    better = Places(Path("/")).enroot(None)
    for key in enroot_conf.PATHS:
        configured = enroot_conf.value(text, key)
        name = f"enroot {key.removeprefix('ENROOT_').removesuffix('_PATH')}"
        below = better[key].lstrip("/")
        if configured is None:
            default, note = _ENROOT_DEFAULTS[key]
            yield (name, Path(os.path.expandvars(default)), note, None, below)
        else:
            fixed = fixed_part(configured)
            note = f"one for each user: {configured}" if str(fixed) != configured else ""
            yield (name, fixed, note, _used(fixed), below)


_ENROOT_DEFAULTS = {
    "ENROOT_RUNTIME_PATH": ("/run", "enroot's default, below XDG_RUNTIME_DIR"),
    "ENROOT_DATA_PATH": ("$HOME", "enroot's default, below XDG_DATA_HOME"),
    "ENROOT_CACHE_PATH": ("$HOME", "enroot's default, below XDG_CACHE_HOME"),
    "ENROOT_TEMP_PATH": ("/tmp", "enroot's default, TMPDIR or this"),  # noqa: S108
}


def fixed_part(setting: str) -> Path:
    """The folder above the first part of a setting that enroot's shell fills in."""
    found = _EXPANSION.search(setting)
    if found is None:
        return Path(setting)
    return Path(setting[: found.start()].rpartition("/")[0] or "/")


def of_slipway(room: Room) -> Iterator[Wanted]:
    """What this checkout keeps itself."""
    project = room.project
    for what, path in (("Slipway cache", project.cache), ("Slipway .sqsh files", project.sqsh)):
        yield (what, path, "moves with SLIPWAY_STATE", _used(path), "slipway/state")


def _used(path: Path) -> int | None:
    try:
        return measure(path).bytes
    except StorageError:
        return None


def place(
    what: str,
    path: Path,
    note: str,
    used: int | None,
    below: str,
    mounted: tuple[Mount, ...],
    ranked: tuple[Candidate, ...],
) -> Place:
    """With its disk, and with the first of the ranked disks that is better."""
    mount = target.home_of(mounts.existing(path).resolve(), mounted)
    free = mounts.space(path).free
    best = next((c for c in ranked if c.mount.device != mount.device and c.space.free > free), None)
    ours = next((rank for rank, c in enumerate(ranked) if c.mount.device == mount.device), None)
    if ours == 0 or best is None:
        better, reason = None, "the best place here"
    else:
        better, reason = best.path / below, best.reason
    return Place(what, path, note, mount.source, mount.fstype, used, free, better, reason)
