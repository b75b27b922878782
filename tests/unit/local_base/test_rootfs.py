"""A kept root file system is used only where it is still what was made."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from slipway.core import Project, SharedParts, silent
from slipway.local_base import apt, rootfs

CHECKOUT = Path(__file__).parents[3]


def test_a_tar_that_is_damaged_or_not_known_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(_project: Project, _work: Path, tar: Path, *_: object) -> None:
        tar.write_bytes(b"root file system")
        made.append(tar)

    monkeypatch.setattr(rootfs, "_mmdebstrap", make)
    project = Project(CHECKOUT, tmp_path)

    def ask() -> Path:
        return rootfs.make_rootfs(project, silent, tmp_path / "log")

    path = ask()
    assert ask() == path
    assert len(made) == 1
    path.write_bytes(b"root file systen")
    assert ask().read_bytes() == b"root file system"
    path.with_name(f"{path.name}.sha256").unlink()
    ask()
    assert len(made) == 3
    assert ask() == path
    assert len(made) == 3


def test_machines_that_share_a_folder_make_it_once_and_believe_no_damaged_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(_project: Project, _work: Path, tar: Path, *_: object) -> None:
        tar.write_bytes(b"root file system")
        made.append(tar)

    monkeypatch.setattr(rootfs, "_mmdebstrap", make)
    shared = SharedParts(tmp_path / "shared")

    def ask(machine: str) -> bytes:
        project = Project(CHECKOUT, tmp_path / machine, shared)
        return rootfs.make_rootfs(project, silent, tmp_path / "log").read_bytes()

    assert [ask("one"), ask("two"), ask("one")] == [b"root file system"] * 3
    assert len(made) == 1
    (part,) = (tmp_path / "shared" / rootfs.SHARED_KIND).iterdir()
    next(part.glob("*.tar")).write_bytes(b"root file systen")
    assert ask("three") == b"root file system"
    assert len(made) == 2


def test_nothing_of_this_hosts_python_reaches_the_packages_own_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mmdebstrap").write_text(
        '#!/bin/bash\ncd "$TMPDIR" && env -0 >environment && truncate -s 1M hole\n'
        'tar --format=pax --sparse -cf "${@: -3:1}" environment hole\n'  # as 1.6.0 does
    )
    (programs / "mmdebstrap").chmod(0o755)
    monkeypatch.setattr(apt, "host_sources", lambda _: ("deb http://x a main\n", "Types: deb\n"))
    monkeypatch.setattr(rootfs, "_own_mounts", list)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/var/cache/python")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    tar = rootfs.make_rootfs(Project(CHECKOUT, tmp_path / "state"), silent, tmp_path / "log")
    with tarfile.open(tar) as archive:
        assert [member.sparse for member in archive] == [None, None]  # engines could not push it
        assert archive.getmember("hole").size == 1 << 20
        entries = archive.extractfile("environment")
        assert entries is not None
        names = {entry.partition(b"=")[0].decode() for entry in entries.read().split(b"\0")}
    assert {"PATH", "https_proxy", "TMPDIR"} <= names
    assert not any(name.startswith("PYTHON") for name in names)
