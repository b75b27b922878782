"""The embedded engine's data on another disk, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Event, Project, silent
from slipway.engine import connect, start_daemon, stop_daemon
from slipway.storage import (
    DockerDaemon,
    Machine,
    MoveOptions,
    inspect_storage,
    move_data,
    plan_move,
    restore_data,
)
from slipway.storage.errors import MoveFailedError
from slipway.storage.move.journal import MoveJournal
from tests.support.storage.box import Disk, disk
from tests.support.storage.content import EXPECTED_INSIDE, fill, seen, works

MIB = 1 << 20


@pytest.fixture
def room(project: Project, tmp_path: Path) -> Iterator[DockerDaemon]:
    """A filled embedded engine of its own, and a machine that keeps no journals but these."""
    start_daemon(project)
    try:
        engine = connect(project, "embedded")
        fill(engine)
        engine.close()
        yield DockerDaemon.of(project, Machine(tmp_path / "machine"), "embedded")
    finally:
        stop_daemon(project)


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "big", tmp_path / "big.img", "xfs", 320 * MIB) as made:
        yield made


def look(room: DockerDaemon) -> dict[str, object]:
    engine = connect(room.project, "embedded")
    try:
        return seen(engine)
    finally:
        engine.close()


def move(
    room: DockerDaemon, place: Path, on_event: object = silent, **options: object
) -> MoveJournal | None:
    with room.locked("storage.move"):
        wanted = MoveOptions(**options)  # type: ignore[arg-type]
        planned = plan_move(room, place, "auto", wanted, dry_run=False, say=print)
        if planned.journal is None:
            return None
        return move_data(room, planned.journal, on_event)  # type: ignore[arg-type]


def restore(room: DockerDaemon) -> MoveJournal:
    with room.locked("storage.restore"):
        return restore_data(room, silent, stop=False, agree=lambda _: False)


def data_root(room: DockerDaemon) -> Path:
    engine = connect(room.project, "embedded")
    try:
        return Path(engine.data_root).resolve()
    finally:
        engine.close()


def test_the_embedded_engine_moves_keeps_everything_and_comes_back(
    room: DockerDaemon, big: Disk
) -> None:
    before = look(room)
    assert before["inside"] == EXPECTED_INSIDE
    done = move(room, big.place, delete_old=True)
    assert done is not None
    assert data_root(room).is_relative_to(big.place)
    assert look(room) == before
    assert move(room, big.place) is None
    shown = {place.what: place for place in inspect_storage(room, "auto").places}["embedded engine"]
    assert shown.path == data_root(room)
    assert shown.file_system == "xfs"
    stop_daemon(room.project)
    start_daemon(room.project)
    assert look(room) == before
    restore(room)
    home = room.project.engine
    assert data_root(room) == (home / "data").resolve() == home / "data"
    assert not (home / "data-own").exists()
    assert look(room) == before
    engine = connect(room.project, "embedded")
    works(engine)
    engine.close()


def test_a_failed_move_of_the_embedded_engine_leaves_a_plain_folder(
    room: DockerDaemon, big: Disk
) -> None:
    before = look(room)

    def spoil(event: Event) -> None:
        if event.kind == "start" and event.step == "starting the daemons":
            (database,) = big.place.glob("slipway/*/data/network/files/local-kv.db")
            database.write_bytes(b"not a database" * 999)

    with pytest.raises(MoveFailedError, match="everything is as before"):
        move(room, big.place, on_event=spoil, mode="copy")
    data = room.project.engine / "data"
    assert data.is_dir()
    assert not data.is_symlink()
    assert look(room) == before
    assert [path.name for path in big.place.iterdir()] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from slipway.core.paths import Project
from slipway.storage.move.data_move import move_data
from slipway.storage.machine import Machine
from slipway.storage.move.journal import DockerDaemon
from slipway.storage.move.move_plan import MoveOptions, plan_move

root, state, machine, disk, moment = sys.argv[1:]
room = DockerDaemon.of(Project(Path(root), Path(state)), Machine(Path(machine)), "embedded")

def kill(event):
    if event.kind == "start" and event.step == moment:
        os.kill(os.getpid(), signal.SIGKILL)

with room.locked("storage.move"):
    planned = plan_move(
        room, Path(disk), "auto", MoveOptions(mode="copy"), dry_run=False, say=print
    )
    move_data(room, planned.journal, kill)
"""


@pytest.mark.parametrize(
    "moment", ["copying", "changing the configuration", "starting the daemons"]
)
def test_an_embedded_engine_whose_move_was_killed_works_and_comes_back(
    room: DockerDaemon, big: Disk, moment: str
) -> None:
    before = look(room)
    project = room.project
    arguments = [project.root, project.state, room.machine.root, big.place, moment]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)], cwd=project.root, check=False
    )
    assert killed.returncode < 0
    start_daemon(project)  # somebody who knows nothing of the move
    assert look(room) == before
    assert inspect_storage(room, "auto").unfinished
    restore(room)
    assert look(room) == before
    assert not (project.engine / "data").is_symlink()
