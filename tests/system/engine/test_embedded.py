"""The embedded engine: started, stopped, healed, beside whatever else runs on the machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from slipway.core import Project, command_line, read_pid, wait_until
from slipway.engine import EngineUnavailableError, connect, daemon_status, start_daemon, stop_daemon
from slipway.engine.embedded import layout


@pytest.fixture
def own(project: Project) -> Iterator[Project]:
    """A project whose engine is stopped when the test is over."""
    yield project
    stop_daemon(project)


START = """
import sys
from pathlib import Path
from slipway.engine import start_daemon
from slipway.core.paths import Project
print(start_daemon(Project(Path(sys.argv[1]), Path(sys.argv[2]))))
"""


def _starting(project: Project) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, str(project.root), str(project.state)]
    return subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, text=True)


def _daemons(project: Project) -> list[int]:
    place = layout.embedded_paths(project)
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if place.owns(pid)]


def _mounts(project: Project) -> list[str]:
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if f" {project.state}/" in line]


def test_it_starts_answers_and_stops_without_a_trace(own: Project) -> None:
    network = sorted(Path("/sys/class/net").iterdir())
    forward = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    url = start_daemon(own)
    status = daemon_status(own)
    assert (status.running, status.url) == (True, url)
    with closing(connect(own, "embedded")) as engine:
        assert engine.embedded
        assert Path(engine.data_root) == status.data_root
        overlay2 = engine.client.info()["Driver"] == "overlay2"
        assert engine.containerd_store is not overlay2
        assert engine.answers()
    assert sorted(Path("/sys/class/net").iterdir()) == network
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forward
    assert stop_daemon(own) is True
    assert daemon_status(own).running is False
    assert _daemons(own) == []
    assert _mounts(own) == []
    assert stop_daemon(own) is False


def test_starting_it_again_changes_nothing(own: Project) -> None:
    assert start_daemon(own) == start_daemon(own)
    first = daemon_status(own).pid
    start_daemon(own)
    assert daemon_status(own).pid == first


def test_two_starts_at_once_start_one_engine(own: Project) -> None:
    starts = [_starting(own) for _ in range(3)]
    urls = {start.communicate(timeout=120)[0] for start in starts}
    assert {start.returncode for start in starts} == {0}
    assert len(urls) == 1
    names = sorted(Path(command_line(pid)[0]).name for pid in _daemons(own))
    assert names == ["containerd", "dockerd"]


def test_it_outlives_the_command_that_started_it_and_a_ctrl_c_in_its_terminal(
    own: Project,
) -> None:
    start = _starting(own)
    start.communicate(timeout=120)
    pid = daemon_status(own).pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    assert daemon_status(own).running


def test_daemons_that_are_scripts_at_first_are_waited_for(
    own: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for name in ("dockerd", "containerd"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nsleep 0.5\nexec {shutil.which(name, path=search)} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{search}")
    start_daemon(own)
    assert daemon_status(own).running


def _is_gone(pid: int) -> bool:
    return command_line(pid) == []


@pytest.mark.parametrize("victim", ["dockerd", "containerd", "both"])
def test_after_a_crash_the_next_start_heals_it(own: Project, victim: str) -> None:
    start_daemon(own)
    place = layout.embedded_paths(own)
    before = {
        "dockerd": read_pid(place.dockerd_pid),
        "containerd": read_pid(place.containerd_pid),
    }
    for name, pid in before.items():
        if victim in (name, "both"):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert wait_until(partial(_is_gone, pid), 30)
    assert not daemon_status(own).running
    start_daemon(own)
    assert daemon_status(own).running
    names = sorted(Path(command_line(pid)[0]).name for pid in _daemons(own))
    assert names == ["containerd", "dockerd"]
    assert not set(before.values()) & set(_daemons(own))
    stop_daemon(own)
    assert _mounts(own) == []


def test_pid_files_that_name_another_program_do_it_no_harm(own: Project) -> None:
    place = layout.embedded_paths(own)
    place.create()
    place.socket.touch()
    for file in (place.dockerd_pid, place.containerd_pid):
        file.write_text(f"{os.getpid()}\n")
    assert not daemon_status(own).running
    start_daemon(own)
    assert daemon_status(own).running


def test_a_deep_checkout_gets_an_engine_too_with_its_sockets_under_run(tmp_path: Path) -> None:
    state = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 4)
    project = Project(tmp_path, state)
    place = layout.embedded_paths(project)
    url = start_daemon(project)
    try:
        assert url.startswith("unix:///run/slipway-")
        assert str(place.run) in (place.home / "engine.json").read_text()
        with closing(connect(project, "embedded")) as engine:
            assert Path(engine.data_root) == state / "engine" / "data"
    finally:
        stop_daemon(project)
    assert not place.run.exists()


@contextmanager
def _mounted(kind: str, point: Path, options: str, source: str) -> Iterator[None]:
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", kind, "-o", options, source, str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_disk_that_overlayfs_cannot_use_is_told_in_the_daemons_own_words(
    tmp_path: Path,
) -> None:
    layers = {name: tmp_path / name for name in ("lower", "upper", "work")}
    for folder in layers.values():
        folder.mkdir()
    options = ",".join(f"{name}dir={folder}" for name, folder in layers.items())
    point = tmp_path / "disk"
    with _mounted("overlay", point, options, "overlay"):
        project = Project(tmp_path, point)
        with pytest.raises(EngineUnavailableError, match="graphdriver") as caught:
            start_daemon(project)
        assert _daemons(project) == []
        assert _mounts(project) == []
    assert caught.value.cure is not None
    assert "SLIPWAY_STATE" in caught.value.cure
    assert caught.value.where == str(layout.embedded_paths(project).log)


def test_a_state_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    point = tmp_path / "disk"
    with (
        _mounted("tmpfs", point, "ro", "tmpfs"),
        pytest.raises(EngineUnavailableError, match="Read-only file system") as caught,
    ):
        start_daemon(Project(tmp_path, point))
    assert caught.value.where == str(point / "engine")


def test_a_daemon_that_docker_host_names_is_used_and_is_the_users(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", start_daemon(own))
    with closing(connect(own)) as engine:
        assert engine.url == daemon_status(own).url
        assert not engine.embedded


def test_a_daemon_that_docker_host_names_and_that_is_gone_is_an_error_that_names_it(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EngineUnavailableError, match="no Docker daemon answers") as caught:
        connect(own)
    assert caught.value.where == "unix:///nowhere/docker.sock"
    assert not daemon_status(own).running


def test_connecting_without_starting_starts_nothing(own: Project) -> None:
    with pytest.raises(EngineUnavailableError, match="does not run"):
        connect(own, "embedded", start=False)
    assert not own.engine.exists()
