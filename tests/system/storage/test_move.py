"""Moving real daemons to another disk and back: nothing is lost, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Project, UsageError
from slipway.storage import StorageError, delete_kept, require_root
from slipway.storage.docker import containerd, daemon_process
from slipway.storage.storage_report import move_steps
from tests.support.storage.box import Box, box, run
from tests.support.storage.content import (
    EXPECTED_INSIDE,
    LOWER,
    UPPER,
    VOLUME,
    fill,
    fingerprint,
    rootfs,
    run_sleeper,
    works,
)
from tests.support.storage.newer import search_path
from tests.support.storage.steps import look, look_at_status, move, planned, restore, room_of

FLAVOURS = ("own containerd", "separate containerd", "containerd image store")
IMAGES = {
    "own containerd": ("overlay2/*/diff", "overlay2/*/link", "image/overlay2/imagedb/content"),
    "separate containerd": ("overlay2/*/diff", "overlay2/*/link", "image/overlay2/imagedb/content"),
}
IMAGES_IN_CONTAINERD = (
    "io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs",
    "io.containerd.content.v1.content/blobs",
)


@pytest.fixture
def flavoured(request: pytest.FixtureRequest, shared_project: Project) -> Iterator[Box]:
    """A box with a running, filled daemon of the flavour that the test is parametrised with."""
    with flavour(request.param, shared_project) as made:
        yield made


@contextmanager
def flavour(name: str, shared_project: Project) -> Iterator[Box]:
    settings: dict[str, Any] = {"containerd": name != "own containerd"}
    if name == "containerd image store":
        settings["search"] = search_path(shared_project.state / "docker-newer", os.environ["PATH"])
        settings["config"] = {"features": {"containerd-snapshotter": True}}
    with box(**settings) as made:
        made.start()
        with made.engine() as engine:
            fill(engine)
        yield made


@pytest.fixture
def filled() -> Iterator[Box]:
    """A box with a running, filled daemon."""
    with box() as made:
        made.start()
        with made.engine() as engine:
            fill(engine)
        yield made


def data(made: Box, name: str, docker: Path, containerd_root: Path) -> dict[str, object]:
    """The bytes of images, containers' files and volumes, wherever they are now."""
    found: dict[str, object] = {}
    if name == "containerd image store":
        # A removal that waits for the garbage collection: what belonged to containers that are
        # gone is gone after it, and not some time later.
        ctr = ["ctr", "--address", str(made.containerd_socket), "--namespace", "moby", "images"]
        run(*ctr, "tag", f"docker.io/{LOWER}", "collect:now")
        run(*ctr, "rm", "--sync", "collect:now")
        found.update(fingerprint(containerd_root, *IMAGES_IN_CONTAINERD))
    else:
        found.update(fingerprint(docker, *IMAGES[name]))
    found.update(fingerprint(docker, "volumes/*/_data"))
    return found


@pytest.mark.parametrize(
    ("flavoured", "name", "fstype"),
    [(name, name, fstype) for name, fstype in zip(FLAVOURS, ("xfs", "ext4", "xfs"), strict=True)],
    indirect=["flavoured"],
)
def test_a_move_there_and_back_keeps_everything_byte_for_byte(
    flavoured: Box, name: str, fstype: str
) -> None:
    made = flavoured
    both = name != "own containerd"
    before = look(made)
    assert before["inside"] == EXPECTED_INSIDE
    bytes_before = data(made, name, made.data_root, made.containerd_root)
    config = made.machine.daemon_json.read_bytes(), made.machine.containerd_toml.read_bytes()
    with made.disk(fstype) as disk:
        done = move(made, disk.place, mode="copy", delete_old=True)
        assert done is not None
        assert done.kept == ()
        new = disk.place / "docker" / "data-root"
        new_containerd = disk.place / "containerd" / "data-root"
        assert look(made) == before
        assert data(made, name, new, new_containerd) == bytes_before
        assert not made.data_root.exists()
        if both:
            assert containerd.current_root(made.containerd_socket) == new_containerd
        with made.engine() as engine:
            assert engine.data_root == str(new)
        restore(made)
        assert look(made) == before
        assert data(made, name, made.data_root, made.containerd_root) == bytes_before
        assert (
            made.machine.daemon_json.read_bytes(),
            made.machine.containerd_toml.read_bytes(),
        ) == config
        with made.engine() as engine:
            works(engine)


def test_the_old_data_stays_until_it_is_told_to_go(filled: Box) -> None:
    with filled.disk() as disk:
        done = move(filled, disk.place)
        assert done is not None
        assert [kept.path for kept in done.kept] == [filled.data_root]
        assert filled.data_root.exists()
        assert filled.data_root in look_at_status(filled).kept
        before = look(filled)
        with room_of(filled).locked("test"):
            deleted = delete_kept(room_of(filled), print)
        assert [kept.path for kept in deleted] == [filled.data_root]
        assert not filled.data_root.exists()
        assert look(filled) == before
        assert look_at_status(filled).kept == ()


def test_a_second_move_to_the_same_place_does_nothing(filled: Box) -> None:
    with filled.disk() as disk:
        assert move(filled, disk.place) is not None
        pid, config = filled.pid(), filled.machine.daemon_json.stat()
        assert move(filled, disk.place) is None
        assert filled.pid() == pid
        assert filled.machine.daemon_json.stat() == config


def test_a_plan_changes_nothing(filled: Box) -> None:
    with filled.disk() as disk:
        pid, state = filled.pid(), fingerprint(filled.machine.at("/etc"))
        plan = planned(filled, disk.place, dry_run=True)
        assert plan.journal is not None
        assert plan.journal.roots[0].size.bytes > 4_000_000
        assert [p.name for p in disk.place.iterdir()] == ["lost+found"]
        assert not filled.machine.state.exists()
        assert filled.pid() == pid
        assert fingerprint(filled.machine.at("/etc")) == state


def test_without_volumes_and_containers_a_move_starts_fresh_and_images_come_back_on_restore() -> (
    None
):
    with box() as made, made.disk() as disk:
        made.start()
        with made.engine() as engine:
            fill(engine)
            engine.client.api.remove_container("worker", v=True)
            engine.client.api.remove_volume(VOLUME)
        done = move(made, disk.place)
        assert done is not None
        assert not done.roots[0].copy
        with made.engine() as engine:
            assert engine.client.images.list(all=True) == []
            assert engine.data_root == str(disk.place / "docker" / "data-root")
        restore(made)
        with made.engine() as engine:
            assert {UPPER, LOWER} <= {t for i in engine.client.images.list() for t in i.tags}


def test_a_fresh_start_takes_the_data_that_is_there_already() -> None:
    """A notebook instance comes back with its disk, and with /etc as it was made."""
    with box() as made, made.disk() as disk:
        made.start()
        with made.engine() as engine:
            fill(engine)
        assert move(made, disk.place) is not None
        before = look(made)
        made.kill_daemons()
        made.configure()
        shutil.rmtree(made.data_root)
        shutil.rmtree(made.machine.state)
        made.start()
        with made.engine() as engine:
            assert engine.client.images.list(all=True) == []
        done = move(made, disk.place)
        assert done is not None
        assert done.roots[0].adopt
        assert look(made) == before


def test_what_fresh_leaves_behind_is_never_deleted(filled: Box) -> None:
    with filled.disk() as disk:
        with pytest.raises(UsageError, match="1 volumes and 1 containers"):
            move(filled, disk.place, mode="fresh", delete_old=True)
        assert move(filled, disk.place, mode="fresh") is not None
        with pytest.raises(StorageError, match="only there"), room_of(filled).locked("test"):
            delete_kept(room_of(filled), print)
        assert filled.data_root.exists()


def test_running_containers_are_named_and_refused_or_stopped_and_started_again(
    filled: Box,
) -> None:
    with filled.disk() as disk:
        with filled.engine() as engine:
            sleeper = run_sleeper(engine)
        with pytest.raises(StorageError, match="containers are running: sleeper"):
            move(filled, disk.place)
        done = move(filled, disk.place, stop=True, delete_old=True)
        assert done is not None
        with filled.engine() as engine:
            state = engine.client.api.inspect_container(sleeper)
            assert state["State"]["Running"]
            volume = disk.place / "docker" / "data-root" / "volumes" / VOLUME / "_data"
            assert state["Mounts"][0]["Source"] == str(volume)
            done_there = engine.client.api.exec_create(
                sleeper, ["/bin/sh", "-c", "echo 1 >/data/x"]
            )
            engine.client.api.exec_start(done_there["Id"])
            assert (volume / "x").read_text() == "1\n"
            works(engine)  # a container that did not run, with the old data gone


def test_things_made_since_the_move_are_named_before_going_back_and_stay_on_the_disk(
    filled: Box,
) -> None:
    with filled.disk() as disk:
        move(filled, disk.place)
        with filled.engine() as engine:
            engine.client.api.create_volume("since")
        with pytest.raises(StorageError, match="nothing was changed"):
            restore(filled)
        with filled.engine() as engine:
            assert engine.data_root == str(disk.place / "docker" / "data-root")
        done = restore(filled, agree=True)
        left = disk.place / "docker" / "data-root"
        assert [kept.path for kept in done.kept] == [left]
        assert (left / "volumes" / "since").is_dir()
        with pytest.raises(StorageError, match="left behind by an earlier move"):
            move(filled, disk.place)
        with room_of(filled).locked("test"):
            delete_kept(room_of(filled), print)
        assert move(filled, disk.place) is not None


def test_restoring_keeps_what_others_wrote_to_the_configuration_meanwhile(filled: Box) -> None:
    with filled.disk() as disk:
        move(filled, disk.place)
        config = json.loads(filled.machine.daemon_json.read_text())
        filled.machine.daemon_json.write_text(json.dumps({**config, "max-concurrent-uploads": 2}))
        restore(filled)
        assert json.loads(filled.machine.daemon_json.read_text()) == {
            "data-root": str(filled.data_root),
            "max-concurrent-uploads": 2,
        }


def test_a_new_data_root_that_no_restart_followed_is_moved_to_with_the_daemon_stopped(
    filled: Box,
) -> None:
    """daemon.json names the place already, as the move would write it: nothing is to edit."""
    with filled.disk() as disk:
        new = disk.place / "docker" / "data-root"
        filled.machine.daemon_json.write_text(json.dumps({"data-root": str(new)}, indent=4) + "\n")
        before, pid = look(filled), filled.pid()
        done = move(filled, disk.place, delete_old=True)
        assert done is not None
        assert done.edits == ()
        assert filled.pid() != pid
        assert look(filled) == before
        with filled.engine() as engine:
            assert engine.data_root == str(new)
            works(engine)


def test_the_daemons_tmpdir_follows_and_comes_back() -> None:
    with box() as made, made.disk() as disk:
        elsewhere = str(made.folder / "elsewhere")
        made.environment["DOCKER_TMPDIR"] = elsewhere
        made.start()

        def tmpdir() -> str:
            return daemon_process.describe_process("dockerd", made.pid(), made.socket).environment[
                "DOCKER_TMPDIR"
            ]

        move(made, disk.place)
        assert tmpdir() == str(disk.place / "docker" / "tmp")
        restore(made)
        assert tmpdir() == elsewhere


def test_a_containerd_that_runs_others_containers_stays_where_it_is() -> None:
    with box(containerd=True) as made, made.disk() as disk:
        made.start()
        with made.engine() as engine:
            fill(engine)
        root = made.folder / "pod"
        root.mkdir()
        subprocess.run(["tar", "-x", "-C", str(root)], input=rootfs(), check=True)
        ctr = ["ctr", "--address", str(made.containerd_socket), "--namespace", "k8s.io"]
        # runc's state is one folder for all containerds of a machine, and their names the keys.
        name = f"pod-{uuid.uuid4().hex}"
        pod = ("--rootfs", str(root), name, "/bin/sleep", "99")
        run(*ctr, "run", "--detach", "--null-io", *pod)
        pid = daemon_process.listener(made.containerd_socket)
        done = move(made, disk.place)
        assert done is not None
        assert [root.name for root in done.roots] == ["docker"]
        assert daemon_process.listener(made.containerd_socket) == pid
        assert "RUNNING" in run(*ctr, "task", "ls")
        row = next(p for p in look_at_status(made).places if p.what == "containerd root")
        assert row.note == "also used by k8s.io"
        run(*ctr, "task", "delete", "--force", name)


ENROOT_CONF = """\
#ENROOT_RUNTIME_PATH        ${XDG_RUNTIME_DIR}/enroot
ENROOT_CACHE_PATH          /opt/enroot
#ENROOT_TEMP_PATH           ${TMPDIR:-/tmp}
ENROOT_SQUASH_OPTIONS      -comp lzo -noI -noD
ENROOT_ROOTFS_WRITABLE     yes
"""


def test_a_hyperpod_worker_gets_the_layout_that_its_precheck_wants(filled: Box) -> None:
    machine = filled.machine
    machine.enroot_conf.parent.mkdir(parents=True)
    machine.enroot_conf.write_text(ENROOT_CONF)
    machine.at("/opt/sagemaker_cluster").mkdir(parents=True)
    with (
        filled.disk("xfs", at="/opt/dlami/nvme") as nvme,
        filled.disk("ext4", size=900 << 20, at="/opt/sagemaker"),
    ):
        assert move(filled, None) is not None
        # What hyperpod-precheck.py compares, with this machine's root put before the paths:
        # awslabs/awsome-distributed-ai:1.architectures/5.sagemaker-hyperpod/tools.
        config = json.loads(machine.daemon_json.read_text())
        assert config["data-root"] == str(machine.at("/opt/dlami/nvme/docker/data-root"))
        lines = machine.enroot_conf.read_text().splitlines()
        first = next(line for line in lines if "ENROOT_RUNTIME_PATH" in line)
        assert first.split(maxsplit=1) == [
            "ENROOT_RUNTIME_PATH",
            str(machine.at("/opt/dlami/nvme/tmp/enroot/user-")) + "$(id -u)",
        ]
        assert machine.daemon_json.stat().st_mode & 0o444 == 0o444
        squash = next(line for line in lines if line.startswith("ENROOT_SQUASH_OPTIONS"))
        assert squash.split()[1:] == ["-comp", "lzo", "-noI", "-noD", "-exit-on-error"]
        for name in ("tmp", "tmp/enroot", "tmp/enroot/data", "enroot"):
            assert (nvme.place / name).stat().st_mode & 0o7777 == 0o1777
        # Instance store that came back empty: the folders are made again, and nothing else.
        shutil.rmtree(nvme.place / "tmp")
        again = planned(filled, nvme.place)
        assert again.journal is None
        again.make_folders()
        for name in ("tmp", "tmp/enroot", "tmp/enroot/data"):
            assert (nvme.place / name).stat().st_mode & 0o7777 == 0o1777
        # Somebody's script that writes the file anew: only that is moved, and Docker goes on.
        pid = filled.pid()
        machine.enroot_conf.write_text(ENROOT_CONF)
        with filled.engine() as engine:
            run_sleeper(engine)
        only = planned(filled, nvme.place).journal
        assert only is not None
        assert [step.what for step in move_steps(only)] == [f"write {machine.enroot_conf}"]
        assert move(filled, nvme.place) is not None
        assert filled.pid() == pid
        restore(filled)
        assert machine.enroot_conf.read_text() == ENROOT_CONF
        assert filled.pid() == pid
        with filled.engine() as engine:
            assert engine.client.containers.get("sleeper").status == "running"
            engine.client.api.remove_container("sleeper", force=True)


def test_a_disk_that_is_mounted_late_is_waited_for(filled: Box) -> None:
    filled.machine.at("/etc/systemd/system").mkdir(parents=True)
    filled.machine.at("/etc/systemd/system/dlami-nvme.service").touch()
    with filled.disk("xfs", at="/opt/dlami/nvme") as nvme:
        nvme.unmount()
        mounting = subprocess.Popen(
            ["sh", "-c", f"sleep 1.5; mount -o loop {nvme.image} {nvme.place}"]
        )
        assert move(filled, None, profile="hyperpod") is not None
        assert mounting.wait() == 0
        with filled.engine() as engine:
            assert engine.data_root == str(nvme.place / "docker" / "data-root")


def test_a_disk_that_is_not_mounted_is_never_written_to(
    filled: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.storage.move.move_plan.WAIT_S", 0.2)
    with filled.disk("xfs", at="/opt/dlami/nvme") as nvme:
        nvme.unmount()
        with pytest.raises(StorageError, match="nothing is mounted there"):
            move(filled, nvme.place, profile="hyperpod")
        assert list(nvme.place.iterdir()) == []


def test_only_root_may_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(StorageError, match="needs root"):
        require_root()


def test_status_tells_where_everything_is_and_what_would_be_better(filled: Box) -> None:
    with filled.disk("xfs", size=1 << 43, at="/mnt/big") as disk:
        found = look_at_status(filled)
        rows = {place.what: place for place in found.places}
        root = rows["docker data-root"]
        assert root.path == filled.data_root
        assert root.note == "graph driver, overlay2"
        assert root.used is not None
        assert root.used > 4_000_000
        assert root.better == disk.place / "docker" / "data-root"
        assert rows["docker tmp"].path == filled.data_root / "tmp"
        assert {"BuildKit cache", "Slipway cache", "Slipway .sqsh files"} <= set(rows)
        assert found.candidates[0].path == disk.place
        assert json.loads(json.dumps(found.as_json(), default=str))["candidates"][0]["path"] == str(
            disk.place
        )
        move(filled, disk.place)
        moved = {place.what: place for place in look_at_status(filled).places}
        assert moved["docker data-root"].better is None
        assert moved["docker data-root"].reason == "the best place here"
        assert "docker/data-root" in (look_at_status(filled).move or "")
