"""Rules of a plan: copy or fresh, what happens to containerd, what goes when space is made."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from slipway.core import Project, UsageError, silent
from slipway.prune.engine_images import pinned_images
from slipway.prune.engine_images import unused_images as images_to_go
from slipway.prune.removals import image_age
from slipway.records import BaseLock, Locks
from slipway.storage import DockerDaemon, Machine, MoveOptions, StorageError
from slipway.storage.docker.containerd import Containerd
from slipway.storage.docker.installation import DockerInstallation, choose_daemon
from slipway.storage.docker.inventory import DockerInventory
from slipway.storage.docker.systemd import SystemdService
from slipway.storage.move import data_move, move_plan
from slipway.storage.move.changes import DataRoot, FileEdit
from slipway.storage.move.journal import KeptFolder, MoveJournal, begin_journal
from slipway.storage.storage_status import fixed_part, slipway_locations


def snapshot(volumes: tuple[str, ...] = (), containers: tuple[str, ...] = ()) -> DockerInventory:
    return DockerInventory(
        "overlay2", {"sha256:a": ()}, volumes, dict.fromkeys(containers, "name"), ()
    )


@pytest.mark.parametrize(
    ("asked", "before", "mode"),
    [
        (None, snapshot(), "fresh"),
        (None, snapshot(volumes=("v",)), "copy"),
        (None, snapshot(containers=("c",)), "copy"),
        (None, None, "copy"),  # nobody can tell what is there
        ("copy", snapshot(), "copy"),
        ("fresh", snapshot(volumes=("v",)), "fresh"),
    ],
)
def test_what_cannot_be_made_again_is_copied(
    asked: move_plan.Mode | None, before: DockerInventory | None, mode: str
) -> None:
    assert move_plan.mode_of(MoveOptions(asked), before) == mode


def test_layers_that_are_no_files_are_not_copied() -> None:
    before = DockerInventory("btrfs", {}, ("v",), {}, ())
    with pytest.raises(StorageError, match="storage driver btrfs"):
        move_plan.check_driver(before, "copy")
    move_plan.check_driver(before, "fresh")


def subject(
    config: Path, flags: dict[str, str] | None = None, containerd: Containerd | None = None
) -> DockerInstallation:
    def service(_: bool) -> object:
        raise AssertionError("nothing is stopped here")

    return DockerInstallation(
        url="unix:///x",
        embedded=False,
        running=True,
        data_root=Path("/var/lib/docker"),
        at_rest=Path("/var/lib/docker"),
        config=config,
        flags=flags or {},
        tmp=None,
        containerd=containerd,
        systemd=False,
        service=service,  # type: ignore[arg-type]
    )


def containerd(*others: str, root_flag: bool = False) -> Containerd:
    return Containerd(Path("/s"), Path("/root"), Path("/c.toml"), root_flag, others, None)


@pytest.mark.parametrize(
    ("found", "store", "moves"),
    [
        (None, False, False),
        (containerd(), False, True),
        (containerd(), True, True),
        (containerd("k8s.io"), False, False),
    ],
)
def test_a_containerd_that_only_docker_uses_moves_too(
    found: Containerd | None, store: bool, moves: bool
) -> None:
    subject_ = subject(Path("/none"), containerd=found)
    assert move_plan.moves_containerd(subject_, containerd_store=store) == moves


def test_a_containerd_with_dockers_images_and_others_containers_is_refused() -> None:
    with pytest.raises(StorageError, match=r"also runs containers of k8s\.io"):
        move_plan.moves_containerd(
            subject(Path("/none"), containerd=containerd("k8s.io")), containerd_store=True
        )


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("{}", {"data-root": "/x"}, "data-root would be given both"),
        ('{"hosts": []}', {"host": "fd://"}, "hosts would be given both"),
    ],
)
def test_what_would_keep_the_daemon_from_starting_is_refused(
    tmp_path: Path, text: str, flags: dict[str, str], says: str
) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(text)
    with pytest.raises(StorageError, match=says):
        move_plan.check_config(subject(config, flags))


def test_a_root_on_containerds_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="root on its command line"):
        move_plan.check_config(subject(tmp_path / "none", containerd=containerd(root_flag=True)))


def test_a_docker_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match="only a Docker on this machine"):
        choose_daemon("tcp://10.0.0.1:2376", Machine())


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("/opt/enroot", "/opt/enroot"),
        ("/tmp/enroot/data/user-$(id -u)", "/tmp/enroot/data"),
        ("${XDG_CACHE_HOME}/enroot", "/"),
        ("/run/enroot/$UID/x", "/run/enroot"),
    ],
)
def test_the_part_of_an_enroot_path_that_all_users_share_is_found(setting: str, path: str) -> None:
    assert fixed_part(setting) == Path(path)


def cut_off(tmp_path: Path, **changes: object) -> MoveJournal:
    """A move whose copy has its name already."""
    root = DataRoot(
        "docker", tmp_path / "old", tmp_path / "new", tmp_path / "file", tmp_path / "old", copy=True
    )
    for path in (root.old, root.new, root.partial):
        path.mkdir()
    fields: dict[str, object] = {
        "kind": "move",
        "phase": "placing",
        "url": Machine(tmp_path).docker_url,
        "service": SystemdService((), False, ()),
        "was_running": True,
        "disk": tmp_path,
        "device": "8:1",
        "roots": (root,),
        "edits": (),
        "ours": (root.partial, root.new),
        "boot": "another",
    }
    return MoveJournal(**{**fields, **changes})  # type: ignore[arg-type]


def room_with(journal: MoveJournal, tmp_path: Path) -> DockerDaemon:
    machine = Machine(tmp_path)
    begin_journal(machine, journal)
    return DockerDaemon(Project(tmp_path, tmp_path / "state"), machine, journal.url)


@pytest.mark.parametrize("edited", [True, False])
def test_a_copy_that_the_daemons_file_names_is_not_made_again_after_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    """The daemon may have written to it, whether the move named it there or somebody before."""
    edits = (FileEdit("docker", tmp_path / "file", b"old", b"new"),) if edited else ()
    journal = cut_off(tmp_path, edits=edits)
    room = room_with(journal, tmp_path)
    monkeypatch.setattr(data_move, "Transaction", mock.Mock())
    (tmp_path / "file").write_bytes(b"new")
    data_move.resume_move(room, silent)
    assert journal.roots[0].new.exists()
    assert not journal.roots[0].partial.exists()
    if edited:
        (tmp_path / "file").write_bytes(b"old")
        begin_journal(room.machine, journal)
        data_move.resume_move(room, silent)
        assert not journal.roots[0].new.exists()


@pytest.mark.parametrize("who", ["dockerd", "containerd"])
def test_what_a_daemon_uses_is_not_deleted_as_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    kept = tmp_path / "left"
    kept.mkdir()
    found = subject(tmp_path / "none", containerd=containerd())
    if who == "dockerd":
        found = replace(found, data_root=kept)
    else:
        found = replace(found, containerd=replace(containerd(), root=kept))
    monkeypatch.setattr(data_move, "find_installation", lambda *_: found)
    journal = cut_off(tmp_path, phase="undone", kept=(KeptFolder(kept),))
    with pytest.raises(StorageError, match="this is in use"):
        data_move.delete_kept(room_with(journal, tmp_path), print)
    assert kept.exists()


def test_what_only_root_may_look_at_has_no_size_and_is_shown_all_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "state")
    project.cache.mkdir(parents=True)
    project.cache.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        places = list(slipway_locations(DockerDaemon(project, Machine(tmp_path), "embedded")))
    finally:
        os.seteuid(user)
        project.cache.chmod(0o700)
    assert places[0][1:4] == (project.cache, "moves with SLIPWAY_STATE", None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("2w", 1_209_600), ("7", 604_800)]
)
def test_ages_are_read(text: str, seconds: int) -> None:
    assert image_age(text) == seconds


@pytest.mark.parametrize("text", ["", "-1d", "3 days", "1y"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no age"):
        image_age(text)


def image(
    identity: str, *tags: str, parent: str = "", digest: str = "", size: int = 100, shared: int = 40
) -> dict[str, object]:
    return {
        "Id": identity,
        "ParentId": parent,
        "RepoTags": list(tags) or ["<none>:<none>"],
        "RepoDigests": [f"r@{digest}"] if digest else [],
        "Size": size,
        "SharedSize": shared,
    }


IMAGES = [
    image("old", "old:1"),
    image("recent", "recent:1"),
    image("used", "used:1"),
    image("pinned", "pinned:1", digest="sha256:p"),
    image("base", "slipway.local/base:1"),
    image("dangling", shared=-1),
    image("below", "below:1"),
    image("above", "above:1", parent="below"),
]


def test_images_that_somebody_needs_stay() -> None:
    locks = Locks({"b": BaseLock("b", digest="sha256:p"), "c": BaseLock("c")}, {}, {})
    dangling, unused = images_to_go(
        IMAGES, {"used", "above"}, pinned_images(locks), {"recent": 50.0}, before=50.0
    )
    assert [(item.name, item.size) for item in dangling] == [("dangling", 100)]
    assert [(item.name, item.size) for item in unused] == [("old:1", 60)]
