"""What exists only in a data-root goes along, or is named and kept: on real daemons."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.storage import StorageError, delete_kept
from slipway.storage.storage_report import move_summary
from tests.support.storage.box import Box, box, run
from tests.support.storage.steps import move, planned, restore, room_of


@pytest.fixture
def bare() -> Iterator[Box]:
    """A daemon with a containerd of its own beside it, and without images or volumes."""
    with box(containerd=True) as made:
        made.start()
        yield made


def ctr(made: Box, namespace: str, *arguments: str) -> str:
    return run("ctr", "--address", str(made.containerd_socket), "-n", namespace, *arguments)


def add_namespace(made: Box) -> str:
    blob = made.folder / "blob"
    blob.write_text("somebody's")
    ctr(made, "other", "leases", "create", "--id", "kept")
    return "containerd namespace other (1 leases)"


def add_network(made: Box) -> str:
    with made.engine() as engine:
        engine.client.api.create_network("mine", driver="bridge", internal=True)
    return "1 networks (mine)"


def add_swarm(made: Box) -> str:
    with made.engine() as engine:
        api = engine.client.api
        api.init_swarm(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:0")
        api.create_secret("password", b"x")
        api.create_config("settings", b"y")
    return "membership in a swarm (1 secrets (password) and 1 configs (settings))"


def add_file(made: Box) -> str:
    (made.data_root / "backup.tar").write_text("mine")
    return "1 other files (backup.tar)"


KINDS = {"namespace": add_namespace, "network": add_network, "swarm": add_swarm, "file": add_file}


@pytest.mark.parametrize("kind", KINDS)
def test_what_exists_nowhere_else_goes_along_there_and_back(bare: Box, kind: str) -> None:
    what = KINDS[kind](bare)
    with bare.disk() as disk:
        with pytest.raises(UsageError, match="leaves behind"):
            planned(bare, disk.place, mode="fresh", delete_old=True)
        plan = planned(bare, disk.place, dry_run=True)
        assert plan.journal is not None
        assert plan.journal.carries
        assert any(what in line for line in move_summary(plan.journal))
        assert move(bare, disk.place, delete_old=True) is not None
        assert not bare.data_root.exists()
        assert still_there(bare, kind)
        restore(bare)
        assert still_there(bare, kind)


def still_there(made: Box, kind: str) -> bool:
    with made.engine() as engine:
        api = engine.client.api
        root = Path(engine.data_root)
        if kind == "swarm":
            return [s["Spec"]["Name"] for s in api.secrets()] == ["password"]
        if kind == "network":
            return "mine" in [network["Name"] for network in api.networks()]
    if kind == "namespace":
        return "kept" in ctr(made, "other", "leases", "ls", "-q")
    return (root / "backup.tar").read_text() == "mine"


def test_what_a_fresh_move_left_behind_is_never_deleted(bare: Box) -> None:
    add_file(bare)
    with bare.disk() as disk:
        move(bare, disk.place, mode="fresh")
        with pytest.raises(StorageError, match=r"only there: 1 other files \(backup\.tar\)"):
            delete_kept(room_of(bare), print)
        assert (bare.data_root / "backup.tar").exists()
        restore(bare)


def test_what_was_made_since_a_move_is_named_and_stays_on_its_disk(
    bare: Box,
) -> None:
    with bare.disk() as disk:
        move(bare, disk.place)
        with bare.engine() as engine:
            engine.client.api.create_volume("since")
        with pytest.raises(StorageError, match="nothing was changed"):
            restore(bare)
        restore(bare, agree=True)
        assert (disk.place / "docker/data-root/volumes/since").is_dir()


def test_a_data_root_that_is_a_link_moves_and_comes_back(tmp_path: Path) -> None:
    with box() as made:
        real = made.folder / "elsewhere"
        real.mkdir()
        made.data_root.parent.mkdir(parents=True, exist_ok=True)
        made.data_root.symlink_to(real)
        made.start()
        with made.engine() as engine:
            engine.client.api.create_volume("kept")
        config = made.machine.daemon_json.read_bytes()
        with made.disk() as disk:
            move(made, disk.place, delete_old=True)
            with made.engine() as engine:
                assert engine.data_root == str(disk.place / "docker/data-root")
                assert [v["Name"] for v in engine.client.api.volumes()["Volumes"]] == ["kept"]
            restore(made)
            assert made.machine.daemon_json.read_bytes() == config
            with made.engine() as engine:
                assert [v["Name"] for v in engine.client.api.volumes()["Volumes"]] == ["kept"]


def test_a_second_daemon_on_the_same_file_is_told_before_anything_stops(bare: Box) -> None:
    pid = bare.pid()
    command = [
        *bare.dockerd_command()[:2],
        f"--host=unix://{bare.folder}/second.sock",
        f"--exec-root={bare.folder}/exec2",
        f"--pidfile={bare.folder}/d2.pid",
        *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
        f"--containerd={bare.containerd_socket}",
    ]
    with (
        (bare.folder / "second.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as other,
    ):
        try:
            with bare.disk() as disk, pytest.raises(StorageError, match="a second dockerd"):
                planned(bare, disk.place, dry_run=True)
        finally:
            other.kill()
    assert bare.pid() == pid
