"""What is remembered of a daemon and of a move: snapshots, journals, links, containers' paths."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import TreeSize
from slipway.engine import trial_program
from slipway.storage import Machine, StorageError
from slipway.storage.docker import embedded_service
from slipway.storage.docker.daemon_process import DaemonProcess, ProcessService
from slipway.storage.docker.data_folder import DataFolders, repoint
from slipway.storage.docker.inventory import (
    DockerInventory,
    daemon_at_rest,
    lost_objects,
    objects_since,
)
from slipway.storage.docker.systemd import SystemdService
from slipway.storage.move import journal as journals
from slipway.storage.move.changes import DataRoot, FileEdit
from slipway.storage.move.journal import KeptFolder, MoveJournal

BEFORE = DockerInventory(
    driver="overlay2",
    images={"sha256:a": ("one:1", "one:2"), "sha256:b": ()},
    volumes=("v",),
    containers={"c1": "worker", "c2": "short-lived"},
    running=("c2",),
    transient=("c2",),
)


def test_what_is_missing_is_named() -> None:
    assert lost_objects(BEFORE, BEFORE) == ()
    after = DockerInventory("vfs", {"sha256:a": ("one:1",)}, (), {}, ())
    assert lost_objects(BEFORE, after) == (
        "the storage driver overlay2 (it is vfs now)",
        "the name one:2 of an image",
        "image sha256:b",
        "volume v",
        "container worker",  # short-lived went by itself: --rm
    )


def test_what_was_made_since_is_named() -> None:
    after = replace(BEFORE, volumes=("v", "w"), images={**BEFORE.images, "sha256:n": ("new:1",)})
    assert objects_since(BEFORE, after) == ("image new:1", "volume w")


def test_a_stopped_daemons_images_volumes_and_containers_are_read_from_its_files(
    tmp_path: Path,
) -> None:
    layers = tmp_path / "image" / "overlay2"
    (layers / "imagedb/content/sha256").mkdir(parents=True)
    (layers / "imagedb/content/sha256/aa").touch()
    repositories = {"one": {"one:1": "sha256:aa", "one@sha256:dd": "sha256:aa"}}
    (layers / "repositories.json").write_text(json.dumps({"Repositories": repositories}))
    (tmp_path / "volumes/v").mkdir(parents=True)
    (tmp_path / "volumes/metadata.db").touch()
    (tmp_path / "containers/c0ffee").mkdir(parents=True)
    found = daemon_at_rest(DataFolders(tmp_path))
    assert found == DockerInventory(
        "overlay2", {"sha256:aa": ("one:1",)}, ("v",), {"c0ffee": "c0ffee"}, ()
    )
    assert found.irreplaceable == "1 volumes and 1 containers"
    assert daemon_at_rest(DataFolders(tmp_path / "volumes")) is None


def journal(machine: Machine, **changes: object) -> MoveJournal:
    root = DataRoot(
        "docker",
        Path("/old"),
        Path("/new"),
        Path("/file"),
        Path("/old"),
        TreeSize(5, 6),
        copy=True,
    )
    made = MoveJournal(
        kind="move",
        phase="planned",
        url="unix:///var/run/docker.sock",
        service=SystemdService((), False, ()),
        was_running=True,
        disk=Path("/mnt"),
        device="8:1",
        roots=(root,),
        edits=(FileEdit("docker", Path("/file"), b"\xff\0", None),),
        folders=((Path("/mnt/tmp"), 0o1777),),
        before=BEFORE,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_journal_is_read_as_it_was_written_by_root_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    written = journal(
        machine, kept=(KeptFolder(Path("/old"), "1 volumes"),), made=(Path("/mnt/x"),)
    )
    journals.begin_journal(machine, written)
    assert journals.read_journal(machine, written.url) == written
    path = journals.journal_folder(machine, written.url) / "journal.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_daemons_environment_comes_through_a_journal_whatever_its_bytes(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    dockerd = DaemonProcess(
        *("dockerd", 7, 8, ("/usr/bin/dockerd", "--label=\udcff"), {"NAME": "gr\udcfc\udcdfe"}),
        Path("/run/docker.sock"),
        None,
    )
    written = journal(machine, service=ProcessService(dockerd, None, Path("/log")))
    journals.begin_journal(machine, written)
    assert journals.read_journal(machine, written.url) == written


def test_a_journal_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    """It names its daemon's kind, and has content as RFC 4648 spells it in section 4."""
    machine = Machine(tmp_path)
    written = journal(machine, edits=(FileEdit("docker", Path("/file"), b"\xff\xfe\0", None),))
    journals.begin_journal(machine, written)
    path = journals.journal_folder(machine, written.url) / "journal.json"
    data = json.loads(path.read_text())
    data["edits"][0]["before"] = "//4A"
    data["embedded"] = False
    del data["notes"], data["own_namespaces"], data["before"]["namespaces"]
    path.write_text(json.dumps(data))
    assert journals.read_journal(machine, written.url) == written


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "slipway-storage/1", "kind": 3}'])
def test_what_is_no_journal_is_told_by_its_path_in_one_line(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    path = journals.journal_folder(machine, machine.docker_url) / "journal.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(StorageError, match="not a journal") as refused:
        journals.read_journal(machine, machine.docker_url)
    assert refused.value.where == str(path)
    assert "\n" not in refused.value.what


def test_one_socket_has_one_journal_however_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to(tmp_path / "run")
    machine = Machine(tmp_path)
    one = journals.journal_folder(machine, f"unix://{tmp_path}/var/run/docker.sock")
    assert one == journals.journal_folder(machine, f"unix://{tmp_path}/run/docker.sock")


def test_an_undone_move_makes_way_for_the_one_before_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    first = journal(machine)
    journals.begin_journal(machine, first)
    journals.finish_journal(machine, first.at("done", kept=(KeptFolder(Path("/old")),)))
    second = journal(machine, disk=Path("/other"), kept=(KeptFolder(Path("/old")),))
    journals.begin_journal(machine, second)
    left = (KeptFolder(Path("/old")), KeptFolder(Path("/half")))
    journals.finish_journal(machine, second.at("undone", kept=left))
    last = journals.read_journal(machine, first.url)
    assert last is not None
    assert (last.phase, last.disk, last.kept) == ("done", Path("/mnt"), left)


def test_a_crash_between_putting_one_journal_aside_and_writing_the_next_loses_nothing(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    first = journal(machine)
    journals.begin_journal(machine, first)
    journals.finish_journal(machine, first.at("done"))
    place = journals.journal_folder(machine, first.url)
    (place / "journal.json").rename(place / "last.json")
    last = journals.read_journal(machine, first.url)
    assert last is not None
    assert last.phase == "done"


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    journals.begin_journal(machine, journal(machine))
    path = journals.journal_folder(machine, journal(machine).url) / "journal.json"
    path.write_text(path.read_text().replace("slipway-storage/1", "slipway-storage/9"))
    with pytest.raises(StorageError, match="another version"):
        journals.read_journal(machine, journal(machine).url)


def test_a_folder_becomes_a_link_to_itself_and_a_folder_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("x")
    embedded_service.settle_link(data)
    embedded_service.settle_link(data)
    assert data.is_symlink()
    assert (data / "file").read_text() == "x"
    embedded_service.unsettle_link(data)
    embedded_service.unsettle_link(data)
    assert not data.is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (data / "file").read_text() == "x"


def test_a_settling_that_was_killed_is_done_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    embedded_service.own_data_path(data).symlink_to(
        embedded_service.own_data_path(data).name
    )  # made, and then killed
    embedded_service.settle_link(data)
    assert data.resolve() == embedded_service.own_data_path(data)


def test_a_link_to_another_disk_is_left_alone(tmp_path: Path) -> None:
    data, big = tmp_path / "data", tmp_path / "big"
    big.mkdir()
    data.symlink_to(big)
    embedded_service.settle_link(data)
    embedded_service.unsettle_link(data)
    assert data.readlink() == big


def test_a_folder_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    embedded_service.own_data_path(data).mkdir()
    with pytest.raises(StorageError, match="in the way"):
        embedded_service.settle_link(data)


def test_containers_know_the_new_place_of_their_volumes_and_keep_a_persons_bind_mounts(
    tmp_path: Path,
) -> None:
    record = {
        "LogPath": "/old/containers/c/c.log",
        "Path": "/old/program",
        "MountPoints": {
            "/data": {"Name": "v", "Source": "/old/volumes/v/_data"},
            "/host": {"Name": "", "Source": "/old/given/by/a/person"},
            "/near": {"Name": "w", "Source": "/older/volumes/w/_data"},
        },
    }
    path = tmp_path / "containers" / "c" / "config.v2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    path.chmod(0o600)
    repoint(tmp_path, Path("/old"), Path("/new"))
    written = path.stat().st_ino
    repoint(tmp_path, Path("/old"), Path("/new"))
    assert path.stat().st_ino == written  # again: nothing changes
    found = json.loads(path.read_text())
    assert found["LogPath"] == "/new/containers/c/c.log"
    assert found["Path"] == "/old/program"
    sources = {name: point["Source"] for name, point in found["MountPoints"].items()}
    assert sources == {
        "/data": "/new/volumes/v/_data",
        "/host": "/old/given/by/a/person",
        "/near": "/older/volumes/w/_data",
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_trial_program_runs_without_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "trial"
    program = trial_program({"x86_64": "amd64"}.get(os.uname().machine, "arm64"))
    assert program
    path.write_bytes(program)
    path.chmod(0o755)
    assert subprocess.run([str(path)], check=False, env={}).returncode == 42


def test_a_folder_that_became_a_link_and_a_folder_again_is_the_same_to_its_edit(
    tmp_path: Path,
) -> None:
    """Of a move that was cut off, when the engine has been started again before it goes on."""
    data = tmp_path / "data"
    data.mkdir()
    embedded_service.settle_link(data)
    before = os.fsencode(data.readlink())
    edit = FileEdit("link", data, before, b"/disk/data")
    assert edit.current() == before
    embedded_service.unsettle_link(data)
    assert not data.is_symlink()
    assert edit.current() == before
