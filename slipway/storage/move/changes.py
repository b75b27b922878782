"""What has to change for the data to be on another disk: folders, configuration files, units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from slipway.storage import enroot_conf
from slipway.storage.disks import NVME, DataPlaces, Profile, TargetDisk, is_mounted
from slipway.storage.docker import (
    CONTAINERD,
    DOCKER,
    DockerInstallation,
    EmbeddedService,
    drop_in,
    own_data_path,
    with_containerd_root,
    with_data_root,
)
from slipway.storage.machine import Machine
from slipway.storage.move.edits import FileEdit, edit_file

_SHARED = "/fsx"  # where HyperPod mounts FSx for Lustre: good for enroot's cache, for nothing else
_SHARED_MODE = 0o1777

# containerd's file last but one, dockerd's last: who restarts them in the middle of it all finds
# whole data on either side.
_ORDER = {"unit": 0, "enroot": 1, "link": 2, "containerd": 3, "docker": 4}


@dataclass(frozen=True)
class ConfigChanges:
    """Roots are (name, old, new, the file that decides); only what differs is here."""

    roots: tuple[tuple[str, Path, Path, Path], ...]
    edits: tuple[FileEdit, ...]
    folders: tuple[tuple[Path, int], ...] = ()
    scratch: tuple[Path, ...] = ()
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
    roots: list[tuple[str, Path, Path, Path]] = []
    edits: list[FileEdit] = []
    if subject.data_root != places.docker:
        edit = edit_file("docker", subject.config, None)
        text = with_data_root(_text(edit), edit.path, places.docker)
        edits.append(replace(edit, after=text.encode()))
        roots.append(("docker", subject.at_rest, places.docker, edit.path))
    if containerd and subject.containerd and subject.containerd.root != places.containerd:
        edit = edit_file("containerd", subject.containerd.config, None)
        text = with_containerd_root(_text(edit), places.containerd)
        edits.append(replace(edit, after=text.encode()))
        roots.append(("containerd", subject.containerd.root, places.containerd, edit.path))
    if subject.systemd:
        edits += _units(target.mount.target, places, machine, containerd=containerd)
    enroot, folders = _enroot(places, profile, machine)
    edits += enroot
    moved_tmp = subject.tmp is not None and not subject.systemd
    return ConfigChanges(
        roots=tuple(roots),
        edits=tuple(
            edit
            for edit in sorted(edits, key=lambda edit: _ORDER[edit.kind])
            if edit.before != edit.after
        ),
        folders=folders,
        scratch=() if places.docker_tmp.exists() else (places.docker_tmp,),
        environment={"DOCKER_TMPDIR": str(places.docker_tmp)} if moved_tmp else {},
    )


def _text(edit: FileEdit) -> str:
    return (edit.before or b"").decode()


def _embedded(subject: DockerInstallation, places: DataPlaces) -> ConfigChanges:
    data = subject.service(False)
    assert isinstance(data, EmbeddedService)
    new = places.embedded(data.project.engine)
    if subject.data_root == new:
        return ConfigChanges((), ())
    # Stopped for the move, the data is behind a link already: see link.py.
    before = os.fsencode(
        data.data.readlink() if data.data.is_symlink() else own_data_path(data.data).name
    )
    edit = FileEdit("link", data.data, before, os.fsencode(new))
    return ConfigChanges((("engine", subject.at_rest, new, data.data),), (edit,))


def _units(disk: Path, places: DataPlaces, machine: Machine, *, containerd: bool) -> list[FileEdit]:
    dlami = disk == machine.at(NVME) and machine.has_unit("dlami-nvme.service")
    docker = drop_in(disk, tmp=places.docker_tmp, dlami=dlami)
    edits = [edit_file("unit", machine.drop_in(DOCKER), docker.encode())]
    if containerd:
        text = drop_in(disk, tmp=None, dlami=dlami)
        edits.append(edit_file("unit", machine.drop_in(CONTAINERD), text.encode()))
    return edits


def _enroot(
    places: DataPlaces, profile: Profile, machine: Machine
) -> tuple[list[FileEdit], tuple[tuple[Path, int], ...]]:
    if not machine.enroot_conf.exists():
        return [], ()
    shared = machine.at(_SHARED)
    cache = shared / "enroot" if profile.name == "hyperpod" and is_mounted(shared) else None
    edit = edit_file("enroot", machine.enroot_conf, None)
    text = enroot_conf.conf_with_values(_text(edit), places.enroot(cache))
    folders = tuple((folder, _SHARED_MODE) for folder in places.enroot_folders(cache))
    return [replace(edit, after=text.encode())], folders
