"""Which daemon is used, and what a person reads when there is none."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import EngineUnavailableError, connect, engine_info
from slipway.engine.endpoint import ping
from tests.support.engine_answers import PODMAN, answering_socket, json_answer


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    return Project(tmp_path, tmp_path / "state")


def _unavailable(project: Project, choice: str) -> EngineUnavailableError:
    with pytest.raises(EngineUnavailableError) as caught:
        connect(project, choice)
    assert caught.value.cure
    return caught.value


def test_a_socket_that_is_not_there_is_named_with_the_ways_out(project: Project) -> None:
    error = _unavailable(project, "unix:///nowhere/docker.sock")
    assert error.what == "no Docker daemon answers"
    assert error.where == "unix:///nowhere/docker.sock"
    assert error.cure is not None
    assert "systemctl start docker" in error.cure
    assert "INVOKE_SLIPWAY_ENGINE=embedded" in error.cure


def test_a_port_on_which_nobody_listens_is_named(project: Project) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
        assert _unavailable(project, url).what == "no Docker daemon answers"


def test_an_engine_behind_ssh_is_refused_with_the_way_to_forward_its_socket(
    project: Project,
) -> None:
    error = _unavailable(project, "ssh://build@host")
    assert error.cure is not None
    assert "ssh -NL" in error.cure


def test_certificates_that_are_not_there_are_an_error_that_names_the_settings(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(project.root / "none"))
    error = _unavailable(project, "auto")
    assert error.cure is not None
    assert "DOCKER_CERT_PATH" in error.cure


@pytest.mark.parametrize("another", [True, False])
def test_a_daemon_that_ends_while_it_is_asked_does_not_speak_for_the_next(
    tmp_path: Path, another: bool
) -> None:
    """As a dockerd does that listens and then finds its data locked, or that is restarted."""
    path = tmp_path / "s"
    first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    first.bind(str(path))
    first.listen()

    def serve() -> None:
        connection, _ = first.accept()
        connection.recv(1, socket.MSG_PEEK)  # what is unread when it closes makes it a reset
        first.close()
        path.unlink()
        if another:
            second.bind(str(path))
            second.listen()
        connection.close()
        with suppress(OSError):  # nobody came: the socket is shut down below
            connection, _ = second.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    answer = ping(path)
    with suppress(OSError):
        second.shutdown(socket.SHUT_RDWR)
    thread.join()
    second.close()
    assert answer == (None if another else "No such file or directory")


def test_a_socket_behind_which_there_is_no_docker_is_an_error(project: Project) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering_socket(project.root, answer) as url:
        assert "404" in _unavailable(project, url).what


@pytest.mark.parametrize("version", ["19.03.15", "20.9.1", "18.09"])
def test_a_docker_without_buildkit_sessions_is_too_old(project: Project, version: str) -> None:
    answer = json_answer({"Version": version, "ApiVersion": "1.40", "DockerRootDir": "/d"})
    with answering_socket(project.root, answer) as url:
        error = _unavailable(project, url)
        with pytest.raises(EngineUnavailableError, match="is too old"):
            engine_info(url)
    assert error.what == f"Docker {version} is too old: BuildKit sessions need 20.10"


def test_podman_is_refused_with_what_can_be_done_beside_it(project: Project) -> None:
    with answering_socket(project.root, json_answer(PODMAN)) as url:
        error = _unavailable(project, url)
        with pytest.raises(EngineUnavailableError, match="Podman"):
            engine_info(url)
    assert error.what.startswith("this is Podman 4.3.1, not Docker")
    assert error.cure is not None
    assert "--no-engine" in error.cure
