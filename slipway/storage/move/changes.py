"""What has to change for the data to be on another disk: folders, configuration files, units."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from slipway.storage.move.edits import FileEdit, edit_file, edit_text
from slipway.storage.text_files import read_text_file

_SHARED = "/fsx"  # where HyperPod mounts FSx for Lustre: good for enroot's cache, for nothing else
_SHARED_MODE = 0o1777
_SHOWN = 3
_EXPANSION = re.compile(r"\$(?:\([^)]*\)|\{[^}]*\}|\w+)")

# containerd's file last but one, dockerd's last: who restarts them in the middle of it all finds
# whole data on either side.
_ORDER = {"unit": 0, "enroot": 1, "link": 2, "containerd": 3, "docker": 4}


@dataclass(frozen=True)
class ConfigChanges:
    """Roots are (name, old, new, the file that decides); only what differs is here."""

    roots: tuple[tuple[str, Path, Path, Path], ...]
    edits: tuple[FileEdit, ...]
    folders: tuple[tuple[Path, int], ...] = ()
    notes: tuple[str, ...] = ()  # what stays where it is, and why
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
        edit = edit_text(
            "docker", subject.config, lambda text, path: with_data_root(text, path, places.docker)
        )
        edits.append(edit)
        roots.append(("docker", subject.at_rest, places.docker, edit.path))
    if containerd and subject.containerd and subject.containerd.root != places.containerd:
        edit = edit_text(
            "containerd",
            subject.containerd.config,
            lambda text, _: with_containerd_root(text, places.containerd),
        )
        edits.append(edit)
        roots.append(("containerd", subject.containerd.root, places.containerd, edit.path))
    if subject.systemd:
        edits += _units(target.mount.target, places, machine, containerd=containerd)
    enroot, folders, notes = _enroot(places, profile, machine)
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
        notes=notes,
        scratch=() if places.docker_tmp.exists() else (places.docker_tmp,),
        environment={"DOCKER_TMPDIR": str(places.docker_tmp)} if moved_tmp else {},
    )


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
    configured = enroot_conf.conf_value(
        read_text_file(machine.enroot_conf).text, enroot_conf.DATA_PATH
    )
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
        "enroot", machine.enroot_conf, lambda text, _: enroot_conf.conf_with_values(text, wanted)
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
        patterns = [_EXPANSION.sub("*", configured).strip("/")]
    folders = (path for pattern in patterns for path in machine.root.glob(f"{pattern}/*"))
    return tuple(sorted(path for path in folders if path.is_dir()))
