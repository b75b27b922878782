"""A Docker that systemd runs: units in the right order, drop-ins, and the way back.

systemctl is ours (see storage_systemctl.py); the daemons that it starts and stops are real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Event
from slipway.storage.docker import containerd, daemon_process, systemd
from slipway.storage.docker.systemd import CONTAINERD, DOCKER
from slipway.storage.errors import MoveFailedError
from tests.support.storage.box import Box, Disk, box
from tests.support.storage.content import fill
from tests.support.storage.steps import look, look_at_status, move, restore
from tests.support.storage.systemctl import DEPENDENT, SOCKET, Systemd

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """A box whose daemons are systemd's, running, with a filled Docker."""
    with box(containerd=True) as made:
        made.machine.at("/run/systemd/system").mkdir(parents=True)
        units = made.machine.at("/lib/systemd/system")
        units.mkdir(parents=True)
        for unit in (DOCKER, SOCKET, CONTAINERD, "dlami-nvme.service"):
            (units / unit).touch()
        programs = made.folder / "bin"
        programs.mkdir()
        (programs / "systemctl").write_text(
            f"#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} "
            f'-m tests.support.storage.systemctl {made.folder} "$@"\n'
        )
        (programs / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        commands = {DOCKER: made.dockerd_command(), CONTAINERD: made.containerd_command()}
        sockets = {DOCKER: made.socket, CONTAINERD: made.containerd_socket}
        Systemd.prepare(
            made.folder,
            {
                unit: {
                    "command": commands[unit],
                    "socket": sockets[unit],
                    "drop_in": made.machine.drop_in(unit),
                }
                for unit in commands
            },
        )
        systemd.systemctl("start", CONTAINERD, SOCKET, DOCKER, DEPENDENT)
        with made.engine() as engine:
            fill(engine)
        yield made


@pytest.fixture
def nvme(host: Box) -> Iterator[Disk]:
    with host.disk("xfs", at="/opt/dlami/nvme") as made:
        yield made


def changes(made: Box) -> list[str]:
    """The calls since the last look that change something."""
    log = made.folder / "systemctl.log"
    calls = [line for line in log.read_text().splitlines() if not line.startswith(("show", "stat"))]
    log.write_text("")
    return calls


def test_units_are_stopped_and_started_in_an_order_in_which_nothing_starts_them_again(
    host: Box, nvme: Disk
) -> None:
    before = look(host)
    changes(host)
    move(host, nvme.place, mode="copy")
    assert changes(host) == [
        "stop docker.socket docker.service",
        "stop containerd.service",
        "daemon-reload",
        "reset-failed docker.socket docker.service containerd.service",
        "start containerd.service",
        "start docker.socket docker.service",
        "start needs-docker.service",
    ]
    assert look(host) == before
    assert all(systemd.unit_is_active(unit) for unit in (DOCKER, SOCKET, CONTAINERD, DEPENDENT))
    assert (
        containerd.current_root(host.containerd_socket) == nvme.place / "containerd" / "data-root"
    )
    restore(host)
    assert look(host) == before


def test_drop_ins_wait_for_the_disk_and_name_the_tmpdir_and_go_with_restore(
    host: Box, nvme: Disk
) -> None:
    move(host, nvme.place)
    running = daemon_process.describe_process("dockerd", host.pid(), host.socket)
    assert running.environment["DOCKER_TMPDIR"] == str(nvme.place / "docker" / "tmp")
    for unit in (DOCKER, CONTAINERD):
        lines = host.machine.drop_in(unit).read_text().splitlines()
        assert f"RequiresMountsFor={nvme.place}" in lines
        assert "After=dlami-nvme.service" in lines
        assert any(line.startswith("ExecStartPre=/usr/bin/timeout 120 ") for line in lines)
    restore(host)
    assert not host.machine.drop_in(DOCKER).parent.exists()
    assert not host.machine.drop_in(CONTAINERD).parent.exists()
    assert (
        "DOCKER_TMPDIR"
        not in daemon_process.describe_process("dockerd", host.pid(), host.socket).environment
    )


def test_a_daemon_that_does_not_start_is_forgiven_and_started_on_the_old_data(
    host: Box, nvme: Disk
) -> None:
    before = look(host)
    changes(host)

    def spoil(event: Event) -> None:
        if event.kind == "start" and event.step == "starting the daemons":
            database = nvme.place / "docker/data-root/network/files/local-kv.db"
            database.write_bytes(b"not a database" * 999)

    with pytest.raises(MoveFailedError, match=r"Job for docker\.service failed"):
        move(host, nvme.place, mode="copy", on_event=spoil)
    calls = changes(host)
    assert calls.count("reset-failed docker.socket docker.service containerd.service") == 2
    assert look(host) == before
    assert not host.machine.drop_in(DOCKER).exists()


def test_a_stopped_docker_is_moved_too_and_runs_afterwards(host: Box, nvme: Disk) -> None:
    before = look(host)
    systemd.systemctl("stop", SOCKET, DOCKER)
    assert look_at_status(host).daemon.endswith("stopped")
    done = move(host, nvme.place)
    assert done is not None
    assert done.before is not None
    assert len(done.before.images) == 2
    assert done.roots[0].copy  # there are a volume and a container
    assert look(host) == before
