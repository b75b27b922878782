"""What has to change for the data to be on another disk: folders, configuration files, units.

Each change of a file or link has its way back, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

from slipway.core import TreeSize, sync_folder, write_atomic
from slipway.storage import enroot_conf
from slipway.storage.candidates import is_mounted
from slipway.storage.docker import (
    CONTAINERD,
    DEFAULT_ROOT,
    DOCKER,
    DockerInstallation,
    EmbeddedService,
    configured_root,
    drop_in,
    own_data_path,
    parse_daemon_json,
    with_containerd_root,
    with_data_root,
)
from slipway.storage.machine import Machine
from slipway.storage.profiles import NVME, DataPlaces, Profile
from slipway.storage.target_disk import TargetDisk
from slipway.storage.text_files import decode_text, read_text_file

Kind = Literal["unit", "enroot", "link", "containerd", "docker"]

# containerd's file last but one, dockerd's last: who restarts them in the middle of it all finds
# whole data on either side.
_ORDER: Sequence[Kind] = ("unit", "enroot", "link", "containerd", "docker")

_SHARED = "/fsx"  # where HyperPod mounts FSx for Lustre: good for enroot's cache, for nothing else
_SHARED_MODE = 0o1777
_SHOWN = 3


@dataclass(frozen=True)
class DataRoot:
    """One folder of data that moves from `old` to `new`.

    `copy`: its content goes along; else the daemon starts there on nothing, or, with `adopt`, on
    what is there. `file` is the configuration file, or link, that decides which one is in use.
    `known` is how the daemon itself calls the old place.
    """

    name: str
    old: Path
    new: Path
    file: Path
    known: Path
    size: TreeSize = field(default_factory=TreeSize)
    copy: bool = False
    adopt: bool = False

    @property
    def partial(self) -> Path:
        """Where the copy is made: it gets its name when it is whole and verified."""
        return self.new.with_name(f"{self.new.name}.partial")

    def called(self, path: Path) -> Path:
        """How the daemon calls one of its places: see slipway.storage.docker.embedded_service."""
        return self.file if path == own_data_path(self.file) else path


@dataclass(frozen=True)
class FileEdit:
    """One file's content before and after; None where there is no file.

    For a link the content is where it points to.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64"
    )

    kind: Kind
    path: Path
    before: bytes | None
    after: bytes | None
    mode: int = 0o644

    def current(self) -> bytes | None:
        """What is there now."""
        try:
            if self.kind == "link":
                if self.path.is_dir() and not self.path.is_symlink():
                    # Started again after a move was cut off, the engine has its plain folder back,
                    # for which a link to itself under another name stands while it is stopped.
                    return os.fsencode(own_data_path(self.path).name)
                return os.fsencode(self.path.readlink())
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def apply(self) -> None:
        """Make it `after`. Again: nothing changes."""
        self._write(self.after)

    def revert(self) -> None:
        """Make it `before`."""
        self._write(self.before)

    def _write(self, content: bytes | None) -> None:
        if content is None:
            self.path.unlink(missing_ok=True)
        elif self.kind == "link":
            beside = self.path.with_name(f".{self.path.name}.partial")
            beside.unlink(missing_ok=True)
            beside.symlink_to(os.fsdecode(content))
            beside.replace(self.path)
        else:
            write_atomic(self.path, content, mode=self.mode)
        if self.path.parent.exists():
            sync_folder(self.path.parent)

    def back(self) -> FileEdit:
        """The change that undoes this one later, when others may have edited the file since.

        Then only what this one set is set back, and what others wrote stays.
        """
        now = self.current()
        if now == self.after or now is None or self.kind in ("link", "unit"):
            return FileEdit(self.kind, self.path, now, self.before, self.mode)
        wide = self.kind == "docker"
        current = decode_text(now, self.path, wide=wide)
        before = decode_text(self.before, self.path, wide=wide)
        text = self._with_setting_of(before.text, current.text)
        return FileEdit(self.kind, self.path, now, current.encode(text), self.mode)

    def _with_setting_of(self, before: str, now: str) -> str:
        if self.kind == "docker":
            root = parse_daemon_json(before, self.path).get("data-root")
            return with_data_root(now, self.path, Path(root) if root else None)
        if self.kind == "containerd":
            return with_containerd_root(now, Path(configured_root(before) or DEFAULT_ROOT))
        values = {key: enroot_conf.conf_value(before, key) for key in enroot_conf.PATHS}
        return enroot_conf.conf_with_values(now, values)


def edit_text(kind: Kind, path: Path, change: Callable[[str], str]) -> FileEdit:
    """An edit that changes a file's text, in the encoding that it has. Raises UsageError."""
    edit = edit_file(kind, path, None)
    current = decode_text(edit.before, edit.path, wide=kind == "docker")
    return replace(edit, after=current.encode(change(current.text)))


def edit_file(kind: Kind, path: Path, after: bytes | None) -> FileEdit:
    """An edit of a file as it is now; links in its path are followed, its mode stays."""
    real = path.resolve()
    if not real.exists():
        return FileEdit(kind, real, None, after)
    return FileEdit(kind, real, real.read_bytes(), after, real.stat().st_mode & 0o7777)


@dataclass(frozen=True)
class ConfigChanges:
    """Only what differs is here."""

    roots: tuple[DataRoot, ...]
    edits: tuple[FileEdit, ...]
    folders: tuple[tuple[Path, int], ...] = ()  # to make, with their modes
    notes: tuple[str, ...] = ()  # what stays where it is, and why
    scratch: tuple[Path, ...] = ()  # what the daemon makes there beside the roots
    environment: Mapping[str, str] = field(default_factory=dict)


def config_changes(
    subject: DockerInstallation,
    places: DataPlaces,
    target: TargetDisk,
    profile: Profile,
    machine: Machine,
    *,
    containerd: bool,
) -> ConfigChanges:
    """All changes; none where everything is as wanted."""
    if subject.embedded:
        return _embedded(subject, places)
    assert subject.config is not None
    roots: list[DataRoot] = []
    edits: list[FileEdit] = []
    if subject.data_root != places.docker:
        config = subject.config
        edit = edit_text("docker", config, lambda text: with_data_root(text, config, places.docker))
        edits.append(edit)
        roots.append(
            DataRoot("docker", subject.at_rest, places.docker, edit.path, subject.data_root)
        )
    if containerd and subject.containerd and subject.containerd.root != places.containerd:
        old = subject.containerd.root
        edit = edit_text(
            "containerd",
            subject.containerd.config,
            lambda text: with_containerd_root(text, places.containerd),
        )
        edits.append(edit)
        roots.append(DataRoot("containerd", old, places.containerd, edit.path, old))
    if subject.systemd:
        edits += _units(target.mount.target, places, machine, containerd=containerd)
    enroot, folders, notes = _enroot(places, profile, machine)
    edits += enroot
    moved_tmp = subject.tmp is not None and not subject.systemd
    edits.sort(key=lambda edit: _ORDER.index(edit.kind))
    return ConfigChanges(
        roots=tuple(roots),
        edits=tuple(edit for edit in edits if edit.before != edit.after),
        folders=folders,
        notes=notes,
        scratch=() if places.docker_tmp.exists() else (places.docker_tmp,),
        environment={"DOCKER_TMPDIR": str(places.docker_tmp)} if moved_tmp else {},
    )


def _embedded(subject: DockerInstallation, places: DataPlaces) -> ConfigChanges:
    service = subject.service(False)
    assert isinstance(service, EmbeddedService)
    link, new = service.data, places.embedded(service.project.engine)
    if subject.data_root == new:
        return ConfigChanges((), ())
    # Stopped for the move, the data is behind a link already: see embedded_service.py.
    before = link.readlink() if link.is_symlink() else own_data_path(link).name
    edit = FileEdit("link", link, os.fsencode(before), os.fsencode(new))
    root = DataRoot("engine", subject.at_rest, new, link, subject.data_root)
    return ConfigChanges((root,), (edit,))


def _units(disk: Path, places: DataPlaces, machine: Machine, *, containerd: bool) -> list[FileEdit]:
    dlami = disk == machine.at(NVME) and machine.has_unit("dlami-nvme.service")
    texts = {DOCKER: drop_in(disk, tmp=places.docker_tmp, dlami=dlami)}
    if containerd:
        texts[CONTAINERD] = drop_in(disk, tmp=None, dlami=dlami)
    return [edit_file("unit", machine.drop_in(unit), text.encode()) for unit, text in texts.items()]


def _enroot(
    places: DataPlaces, profile: Profile, machine: Machine
) -> tuple[list[FileEdit], tuple[tuple[Path, int], ...], tuple[str, ...]]:
    """enroot's folders on the disk; its containers, which nothing makes again, stay in theirs.

    What `enroot create` unpacked, and somebody may have changed since, is named by its path in
    users' homes and scripts. Runtime, cache and temporary files are made again by themselves.
    """
    if not machine.enroot_conf.exists():
        return [], (), ()
    shared = machine.at(_SHARED)
    cache = shared / "enroot" if profile.name == "hyperpod" and is_mounted(shared) else None
    wanted = places.enroot(cache)
    text = read_text_file(machine.enroot_conf).text
    configured = enroot_conf.conf_value(text, enroot_conf.DATA_PATH)
    notes: tuple[str, ...] = ()
    moves = configured != wanted[enroot_conf.DATA_PATH]
    if moves and (containers := enroot_containers(machine, configured)):
        del wanted[enroot_conf.DATA_PATH]
        listed = ", ".join(str(path) for path in containers[:_SHOWN])
        more = f" and {len(containers) - _SHOWN} more" if len(containers) > _SHOWN else ""
        notes = (
            f"enroot's containers stay where they are, and so does {enroot_conf.DATA_PATH}: "
            f"{listed}{more}",
        )
    edit = edit_text(
        "enroot", machine.enroot_conf, lambda text: enroot_conf.conf_with_values(text, wanted)
    )
    folders = tuple((folder, _SHARED_MODE) for folder in places.enroot_folders(cache))
    return [edit], folders, notes


def enroot_containers(machine: Machine, configured: str | None) -> tuple[Path, ...]:
    """Root file systems that `enroot create` made, for all users (NVIDIA/enroot:enroot.in).

    `configured` is ENROOT_DATA_PATH, in which the user's shell fills in names; without it the
    data is below XDG_DATA_HOME, which is .local/share in a home.
    """
    if configured is None:
        patterns = [f"{home}/.local/share/enroot" for home in ("root", "home/*", "home/*/*")]
    else:
        patterns = [enroot_conf.EXPANSION.sub("*", configured).strip("/")]
    folders = (path for pattern in patterns for path in machine.root.glob(f"{pattern}/*"))
    return tuple(sorted(path for path in folders if path.is_dir()))
