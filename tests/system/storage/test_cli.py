"""The storage tasks from the command line, on a real daemon: what they print, how they exit."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection

from slipway.engine import import_rootfs
from slipway.storage import DockerDaemon
from slipway.tasks import storage
from slipway.tasks.cli import InvProgram
from tests.support.storage.box import Box, box
from tests.support.storage.content import fill, rootfs
from tests.support.storage.steps import look, room_of

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def host() -> Iterator[Box]:
    with box() as made:
        made.start()
        with made.engine() as engine:
            fill(engine)
        yield made


@pytest.fixture
def filled(host: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A filled Docker, which the tasks take for the one that the settings name."""
    monkeypatch.setattr(storage, "_daemon", lambda _: room_of(host))
    return host


def inv(*arguments: str) -> int:
    namespace = Collection()
    namespace.add_collection(storage.ns)
    try:
        InvProgram(namespace=namespace, name="Slipway", binary="inv").run(["inv", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_tasks_move_tell_and_go_back(filled: Box, capsys: pytest.CaptureFixture[str]) -> None:
    before = look(filled)
    with filled.disk() as disk:
        assert inv("storage.move", str(disk.place), "--dry-run") == 0
        shown = capsys.readouterr()
        assert f"copy {filled.data_root} to {disk.place}/docker/data-root" in shown.out
        assert "about" in shown.out
        assert inv("storage.move", str(disk.place), "--dry-run", "--json") == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["mode"] == "copy"
        assert plan["roots"][0]["new"] == str(disk.place / "docker" / "data-root")
        assert inv("storage.move", str(disk.place)) == 0
        shown = capsys.readouterr()
        assert "storage move: copying" in shown.err
        assert f"docker: now in {disk.place}/docker/data-root" in shown.err
        assert f"kept: {filled.data_root}" in shown.err
        assert inv("storage.status", "--json") == 0
        status = json.loads(capsys.readouterr().out)
        assert status["unfinished"] is False
        assert status["kept"] == [str(filled.data_root)]
        assert {p["what"]: p["path"] for p in status["places"]}["docker data-root"] == str(
            disk.place / "docker" / "data-root"
        )
        assert inv("storage.move", str(disk.place)) == 0
        assert "nothing to move" in capsys.readouterr().err
        assert inv("storage.restore") == 0
        assert "docker: now in" in capsys.readouterr().err
        assert look(filled) == before
        log = (filled.project.logs / "storage-move.log").read_text()
        assert "storage move start copying" in log
        assert inv("storage.move", "--delete-old") == 0  # moves nothing: there is kept data
        assert f"deleted: {disk.place}/docker/data-root" in capsys.readouterr().err
        assert look(filled) == before
        assert inv("storage.restore") == 3
        assert "no move to go back from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["storage.move", "--mode", "sideways"], 3, "there is no mode 'sideways'"),
        (["storage.move", "--profile", "laptop"], 3, "there is no profile 'laptop'"),
        (["storage.move", "/a", "/b"], 3, "a move has one target"),
        (["storage.move", "--resume"], 3, "nothing to go on with"),
        (["storage.move", "/mnt/with space"], 3, "only letters, digits"),
        (["storage.move", "/"], 1, "is on the same disk"),
        (["storage.prune", "--older-than", "soon"], 3, "'soon' is no age"),
    ],
)
def test_what_cannot_be_done_is_one_paragraph_and_its_exit_code(
    filled: Box, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert inv(*arguments) == code
    printed = capsys.readouterr().err
    assert says in printed
    assert "Traceback" not in printed


def test_without_root_a_move_says_so_before_anything_else(
    filled: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for task in ("storage.move", "storage.restore"):
        assert inv(task) == 1
        assert "this needs root" in capsys.readouterr().err


def test_auto_finds_a_system_docker_that_is_down_in_the_middle_of_a_move(
    filled: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def chosen() -> str:
        return DockerDaemon.of(filled.project, filled.machine, "auto").url

    assert chosen() == filled.url
    with filled.disk() as disk:
        killed = subprocess.run(
            [
                *(sys.executable, "-m", "tests.support.storage.killed"),
                *(str(filled.folder), filled.url, str(disk.place), "copying"),
            ],
            cwd=CHECKOUT,
            check=False,
        )
        assert killed.returncode < 0
        assert chosen() == filled.url
        assert inv("storage.move", str(disk.place)) == 1
        assert inv("storage.restore") == 0
    filled.kill_daemons()
    assert chosen() == "embedded"
    filled.start()


def test_prune_shows_what_goes_and_removes_it_only_when_told_to(
    filled: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # no terminal: nobody can be asked
    with filled.engine() as engine:
        import_rootfs(engine, io.BytesIO(rootfs()), "slip/unused:1", changes=["LABEL a=b"])
    assert inv("storage.prune", "--older-than", "0d", "--dry-run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    names = [item["name"] for step in shown["steps"] for item in step["items"]]
    assert "slip/unused:1" in names
    assert inv("storage.prune", "--older-than", "0d") == 3
    assert "say --yes" in capsys.readouterr().err
    with filled.engine() as engine:
        assert engine.client.images.list("slip/unused")
    assert inv("storage.prune", "--older-than", "0d", "--yes") == 0
    assert "freed" in capsys.readouterr().err
    with filled.engine() as engine:
        assert not engine.client.images.list("slip/unused")
        assert engine.client.images.list("slip/upper")  # a container was made of it
