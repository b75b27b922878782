"""Where everything is: on which disk, how much it takes, and what would be a better place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.core import (
    Mount,
    SlipwayError,
    TreeError,
    disk_space,
    human_bytes,
    measure,
    nearest_existing,
    read_mount_table,
)
from slipway.engine import Engine, sdk_errors
from slipway.storage import enroot_conf
from slipway.storage.candidates import Candidate, candidate_disks, home_of
from slipway.storage.docker import DockerInstallation, engine_of_installation, find_installation
from slipway.storage.errors import StorageError
from slipway.storage.move import DockerDaemon, MoveJournal
from slipway.storage.profiles import DataPlaces, profile
from slipway.storage.text_files import read_text_file

Wanted = tuple[str, Path, str, int | None, str]
"""What, where, a note, bytes used, and its place below a better disk."""
_ENROOT_DEFAULTS = {
    "ENROOT_RUNTIME_PATH": ("/run", "enroot's default, below XDG_RUNTIME_DIR"),
    "ENROOT_DATA_PATH": ("$HOME", "enroot's default, below XDG_DATA_HOME"),
    "ENROOT_CACHE_PATH": ("$HOME", "enroot's default, below XDG_CACHE_HOME"),
    "ENROOT_TEMP_PATH": ("/tmp", "enroot's default, TMPDIR or this"),  # noqa: S108
}


@dataclass(frozen=True)
class StorageStatus:
    """The whole answer. `move` says what became of the last move, None where there was none."""

    profile: str
    daemon: str
    places: tuple[DataLocation, ...]
    candidates: tuple[Candidate, ...]
    move: str | None
    unfinished: bool
    kept: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        candidates = [
            {
                "path": candidate.path,
                "device": candidate.mount.source,
                "file_system": candidate.mount.fstype,
                "free": candidate.space.free,
                "total": candidate.space.total,
                "reason": candidate.reason,
            }
            for candidate in self.candidates
        ]
        return {**asdict(self), "candidates": candidates}


def inspect_storage(room: DockerDaemon, profile_name: str) -> StorageStatus:
    """Look at everything; changes and starts nothing. Raises UsageError for an unknown profile."""
    chosen = profile(profile_name, room.machine)
    mounted = read_mount_table()
    installation: DockerInstallation | None = None
    try:
        installation = find_installation(room.project, room.url, room.machine)
        daemon = f"{installation.name}, {'running' if installation.running else 'stopped'}"
    except SlipwayError as error:
        daemon = f"Docker is not known: {error.what}"
    wanted = [
        *(docker_locations(installation, room) if installation else ()),
        *enroot_locations(room),
        *slipway_locations(room),
    ]
    anchor = installation.data_root if installation else Path("/")
    needed = max((used or 0 for _, _, _, used, _ in wanted), default=0)
    ranked = candidate_disks(chosen, room.machine, anchor, needed)
    journal, told = _last_move(room)
    return StorageStatus(
        profile=chosen.name,
        daemon=daemon,
        places=tuple(locate_data(data, mounted, ranked) for data in wanted),
        candidates=ranked,
        move=told,
        unfinished=journal is not None and not journal.over,
        kept=tuple(kept.path for kept in journal.kept) if journal else (),
    )


def _last_move(room: DockerDaemon) -> tuple[MoveJournal | None, str | None]:
    try:
        journal = room.journal()
    except StorageError as error:
        return None, str(error)
    if journal is None:
        return None, None
    route = ", ".join(f"{root.old} -> {root.new}" for root in journal.roots)
    if room.is_moving():
        return journal, f"a {journal.kind} is at work now ({journal.phase}): {route}"
    if not journal.over:
        return journal, (
            f"a {journal.kind} was cut off while {journal.phase}: {route}. "
            "`./inv storage.move --resume` goes on with it, `./inv storage.restore` goes back"
        )
    return journal, f"the last {journal.kind} is {journal.phase}: {route}"


def status_notes(status: StorageStatus) -> tuple[str, ...]:
    """What a person should know beside the tables."""
    lines = [f"profile {status.profile}; {status.daemon}"]
    if status.move:
        lines.append(status.move)
    if status.kept:
        kept = ", ".join(str(path) for path in status.kept)
        lines.append(f"left behind by earlier moves: {kept} (`storage.move --delete-old`)")
    return tuple(lines)


@dataclass(frozen=True)
class DataLocation:
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


def docker_locations(installation: DockerInstallation, room: DockerDaemon) -> Iterator[Wanted]:
    """What dockerd and a separate containerd keep."""
    store, cache = "stopped", None
    if installation.running:
        try:
            with closing(engine_of_installation(installation, room.project)) as connected:
                driver = str(connected.client.api.info()["Driver"])
                where = "containerd image store" if connected.containerd_store else "graph driver"
                store = f"{where}, {driver}"
                cache = _build_cache(connected)
        except SlipwayError as error:
            store = error.what
    root, what, below = installation.data_root, "docker data-root", "docker/data-root"
    if installation.embedded:
        what = "embedded engine"
        below = str(DataPlaces(Path()).embedded(room.project.engine))
    yield (what, root, store, _used(root), below)
    if installation.containerd:
        separate = installation.containerd.root
        users = ", ".join(installation.containerd.others)
        note = f"also used by {users}" if users else ""
        yield ("containerd root", separate, note, _used(separate), "containerd/data-root")
    tmp = installation.tmp or root / "tmp"
    yield ("docker tmp", tmp, "" if installation.tmp else "in data-root", _used(tmp), "docker/tmp")
    if cache is not None:
        yield ("BuildKit cache", root / "buildkit", "in data-root", cache, "docker/data-root")


def _build_cache(connected: Engine) -> int:
    with sdk_errors(connected, "measuring the build cache"):
        records = connected.client.api.df().get("BuildCache") or ()
    return sum(int(record["Size"]) for record in records)


def enroot_locations(room: DockerDaemon) -> Iterator[Wanted]:
    """enroot's four folders, where enroot is configured."""
    if not room.machine.enroot_conf.exists():
        return
    text = read_text_file(room.machine.enroot_conf).text
    better = DataPlaces(Path()).enroot(None)
    for key in enroot_conf.PATHS:
        configured = enroot_conf.conf_value(text, key)
        name = f"enroot {key.removeprefix('ENROOT_').removesuffix('_PATH')}"
        if configured is None:
            default, note = _ENROOT_DEFAULTS[key]
            yield (name, Path(os.path.expandvars(default)), note, None, better[key])
        else:
            fixed = fixed_part(configured)
            note = f"one for each user: {configured}" if str(fixed) != configured else ""
            yield (name, fixed, note, _used(fixed), better[key])


def fixed_part(setting: str) -> Path:
    """The folder above the first part of a setting that enroot's shell fills in."""
    fixed, *more = enroot_conf.EXPANSION.split(setting, maxsplit=1)
    return Path(fixed.rpartition("/")[0] or "/") if more else Path(fixed)


def slipway_locations(room: DockerDaemon) -> Iterator[Wanted]:
    """What this checkout keeps itself."""
    project = room.project
    for what, path in (("Slipway cache", project.cache), ("Slipway .sqsh files", project.sqsh)):
        yield (what, path, "moves with SLIPWAY_STATE", _used(path), "slipway/state")


def _used(path: Path) -> int | None:
    try:
        return measure(path).bytes
    except TreeError:
        return None


def locate_data(
    data: Wanted, mounted: tuple[Mount, ...], ranked: tuple[Candidate, ...]
) -> DataLocation:
    """With its disk, and with the first of the ranked disks that is better."""
    what, path, note, used, below = data
    mount = home_of(nearest_existing(path).resolve(), mounted)
    free = disk_space(path).free
    best = next((c for c in ranked if c.mount.device != mount.device and c.space.free > free), None)
    ours = next((rank for rank, c in enumerate(ranked) if c.mount.device == mount.device), None)
    if ours == 0 or best is None:
        better, reason = None, "the best place here"
    else:
        better, reason = best.path / below, best.reason
    return DataLocation(what, path, note, mount.source, mount.fstype, used, free, better, reason)
