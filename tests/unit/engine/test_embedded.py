"""Knowing our own processes and mounts again after a crash, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import (
    Mount,
    ProcessError,
    Project,
    command_line,
    end_process,
    parse_mountinfo,
    read_pid,
    spawn,
    wait_until,
)
from slipway.engine import EngineUnavailableError
from slipway.engine.embedded import cleanup, daemon, layout
from slipway.engine.embedded.layout import EmbeddedPaths

SLEEPER = "import time; time.sleep(600)"


def _place(root: Path) -> EmbeddedPaths:
    return EmbeddedPaths(root / "engine", root / "engine" / "run")


def _named(folder: Path, name: str) -> Path:
    """A long-lived program called `name`: the system's sleep under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.symlink_to(Path(sys.executable).resolve())
    return program


@pytest.fixture
def running() -> Iterator[list[int]]:
    """Pids that a test started; ended after it."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        end_process(pid, lambda pid: bool(command_line(pid)), grace_s=0)


def test_a_daemon_with_our_paths_is_ours(tmp_path: Path, running: list[int]) -> None:
    place = _place(tmp_path)
    program = _named(tmp_path / "bin", "dockerd")
    command = [str(program), "-c", SLEEPER, f"--host={place.url}"]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    assert place.owns(running[0])


def test_a_daemon_of_another_project_is_not_ours(tmp_path: Path, running: list[int]) -> None:
    program = _named(tmp_path / "bin", "dockerd")
    other = _place(tmp_path / "other")
    command = [str(program), "-c", SLEEPER, f"--host={other.url}"]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    assert not _place(tmp_path).owns(running[0])


def test_an_editor_that_has_our_files_open_is_not_ours(tmp_path: Path, running: list[int]) -> None:
    place = _place(tmp_path)
    command = [sys.executable, "-c", SLEEPER, f"{place.run}/docker.sock"]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    assert not place.owns(running[0])


def test_a_pid_that_another_program_got_is_never_signalled(
    tmp_path: Path, running: list[int]
) -> None:
    place = _place(tmp_path)
    command = [sys.executable, "-c", SLEEPER]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    place.create()
    place.dockerd_pid.write_text(f"{running[0]}\n")
    place.containerd_pid.write_text(f"{running[0]}\n")
    cleanup.remove_mounts(place)
    assert command_line(running[0]) == command
    assert not place.dockerd_pid.exists()


def test_healing_ends_a_containerd_that_no_pid_file_names(
    tmp_path: Path, running: list[int]
) -> None:
    place = _place(tmp_path)
    place.create()
    program = _named(tmp_path / "bin", "containerd")
    command = [str(program), "-c", SLEEPER, "--address", str(place.containerd_socket)]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    cleanup.remove_mounts(place)
    assert command_line(running[0]) == []


@pytest.mark.parametrize("name", [b"st\xc3\xa4te of mine", b"st\xe4te"], ids=["UTF-8", "Latin-1"])
def test_a_daemon_below_a_folder_of_any_name_is_known(
    tmp_path: Path, running: list[int], name: bytes
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    program = _named(tmp_path / "bin", "containerd")
    place = EmbeddedPaths(folder, folder / "run")
    command = [str(program), "-c", SLEEPER, "--address", str(place.containerd_socket)]
    running.append(spawn(command, log=tmp_path / "log", env=os.environ))
    assert place.owns(running[0])


def test_healing_removes_sockets_and_keeps_data_and_log(tmp_path: Path) -> None:
    place = _place(tmp_path)
    place.create()
    (place.data_root / "layer").write_text("kept")
    place.log.write_text("kept")
    place.socket.touch()
    cleanup.remove_mounts(place)
    assert not place.run.exists()
    assert (place.data_root / "layer").read_text() == place.log.read_text() == "kept"


@pytest.mark.parametrize("content", ["", "12x", "-1"])
def test_a_torn_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert read_pid(tmp_path / "pid") is None


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(
    tmp_path: Path, running: list[int]
) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    pid = spawn([sys.executable, "-c", code], log=tmp_path / "log", env=os.environ)
    running.append(pid)
    assert wait_until(ready.exists, 30)
    assert end_process(pid, lambda pid: bool(command_line(pid)), grace_s=0.1)
    assert command_line(pid) == []


def test_a_spawned_process_is_detached_and_logs_to_its_file(
    tmp_path: Path, running: list[int]
) -> None:
    code = "import time; print('hello', flush=True); time.sleep(600)"
    pid = spawn([sys.executable, "-c", code], log=tmp_path / "log", env=os.environ)
    running.append(pid)
    assert os.getsid(pid) != os.getsid(0)
    assert wait_until(lambda: (tmp_path / "log").read_text() == "hello\n", 30)
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()


def test_a_program_that_cannot_be_run_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no-such-daemon: No such file"):
        spawn(["no-such-daemon"], log=tmp_path / "log", env=os.environ)


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        stat = Path(f"/proc/{child.pid}/stat")
        assert wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", 30)
        assert command_line(child.pid) == []


LOWER, UPPER = "l/JHYQA4UAYCZUQ7RQQ7TUZBXM6L", "c0ffee"


def _root(options: str, target: str = "/") -> Mount:
    line = f"300 280 0:39 / {target} rw,relatime - overlay overlay rw,{options}"
    return parse_mountinfo(line)[0]


def test_a_process_whose_root_is_one_of_our_layers_is_known_however_it_is_mounted(
    tmp_path: Path,
) -> None:
    layers = tmp_path / "overlay2"
    (layers / UPPER / "diff").mkdir(parents=True)
    absolute = _root(f"lowerdir={layers}/{LOWER},upperdir={layers}/{UPPER}/diff")
    relative = _root(f"lowerdir={LOWER}:l/OTHER,upperdir={UPPER}/diff,workdir={UPPER}/work")
    assert cleanup.is_root_of_layer(absolute, tmp_path)
    assert cleanup.is_root_of_layer(relative, tmp_path)


def test_processes_of_other_engines_and_of_the_host_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "overlay2" / UPPER).mkdir(parents=True)
    for line in (
        _root(f"lowerdir=/var/lib/docker/overlay2/{LOWER},upperdir=/var/lib/docker/overlay2/x"),
        _root(f"lowerdir={LOWER},upperdir=other/diff"),
        _root(f"lowerdir={tmp_path}/{LOWER}", target="/mnt/looked-at"),
        _root(f"lowerdir={tmp_path}2/overlay2/{LOWER}"),
        Mount(Path("/"), "/dev/vda", "ext4", ("rw", "discard"), "254:0"),
    ):
        assert not cleanup.is_root_of_layer(line, tmp_path)


def test_a_short_checkout_keeps_its_sockets_beside_its_data(tmp_path: Path) -> None:
    place = layout.embedded_paths(Project(Path("/p"), Path("/p/.slipway")))
    assert place.run == Path("/p/.slipway/engine/run")


def test_a_deep_checkout_gets_sockets_that_fit_and_that_are_its_own() -> None:
    deep, other = (
        layout.embedded_paths(Project(Path("/p"), Path("/", *["folder"] * 20, name)))
        for name in ("a", "b")
    )
    assert deep.run != other.run
    for place in (deep, other):
        longest = place.run / "exec" / "libnetwork" / "0123456789ab.sock"
        assert len(os.fsencode(longest)) <= 107
        assert place.data_root.is_relative_to(place.home)


def test_the_last_errors_are_those_lines_of_the_log_that_report_one(tmp_path: Path) -> None:
    place = _place(tmp_path)
    place.create()
    place.log.write_text(
        'level=info msg="starting"\nlevel=error msg="no overlay"\nlevel=info msg="stopping"\n'
        "failed to start daemon: error initializing graphdriver\n"
    )
    assert place.last_errors() == (
        '  | level=error msg="no overlay"\n'
        "  | failed to start daemon: error initializing graphdriver"
    )


def test_a_new_start_keeps_the_log_of_the_one_before(tmp_path: Path) -> None:
    place = _place(tmp_path)
    place.create()
    place.log.write_text("why it crashed")
    place.create()
    assert (place.home / "engine.log.1").read_text() == "why it crashed"


def test_the_status_of_an_engine_that_never_ran_is_told_without_making_anything(
    tmp_path: Path,
) -> None:
    status = daemon.daemon_status(Project(tmp_path, tmp_path / "state"))
    assert (status.running, status.pid) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_stopping_an_engine_that_never_ran_does_nothing(tmp_path: Path) -> None:
    assert daemon.stop_daemon(Project(tmp_path, tmp_path / "state")) is False
    assert list(tmp_path.iterdir()) == []


def test_without_root_the_error_says_so_and_how_to_go_on() -> None:
    with pytest.raises(EngineUnavailableError, match="needs root") as caught:
        daemon.check_engine_host(root=False, absent=[])
    assert caught.value.cure is not None
    assert "sudo" in caught.value.cure


def test_without_its_programs_the_error_names_them_and_setup() -> None:
    with pytest.raises(EngineUnavailableError, match="needs dockerd, runc") as caught:
        daemon.check_engine_host(root=True, absent=["dockerd", "runc"])
    assert caught.value.cure is not None
    assert "./inv setup" in caught.value.cure


def test_a_host_with_all_of_it_passes() -> None:
    daemon.check_engine_host(root=True, absent=[])


def test_the_daemons_get_proxies_and_no_cloud_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    environment = daemon._environment()
    assert environment["https_proxy"] == "http://proxy:3128"
    assert "AWS_SECRET_ACCESS_KEY" not in environment
