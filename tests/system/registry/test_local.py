"""The local registry's process: started once, known again, healed after a crash."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Credentials, CredentialsFor, Project, anonymous, wait_until
from slipway.registry import (
    NoCredentialsError,
    RegistryClient,
    RegistryError,
    RegistryUnavailableError,
    Target,
    credentials_for,
    local_registry_status,
    start_local_registry,
    stop_local_registry,
)
from slipway.registry.local.local_server import RegistryServer
from tests.support.registry.images import put_oci_image

PORT = 5755


@pytest.fixture
def registry(project: Project) -> Iterator[Project]:
    """A project whose registry is stopped after the test."""
    yield project
    stop_local_registry(project)


def running(project: Project) -> list[int]:
    """Processes that serve this project's configuration, as the kernel tells it."""
    listed = subprocess.run(
        ["pgrep", "-f", str(project.registry / "config.yml")], capture_output=True, text=True
    )
    return [int(line) for line in listed.stdout.split()]


def test_up_answers_and_a_second_up_is_the_same_registry(registry: Project) -> None:
    target = start_local_registry(registry, PORT)
    assert target == Target("local", "local", target.host)
    assert start_local_registry(registry, PORT) == target
    with RegistryClient(target.host, credentials_for(project=registry)) as client:
        assert client.head("none", "none") is None
    status = local_registry_status(registry)
    assert (status.running, status.target) == (True, target)
    assert running(registry) == [status.pid]


def test_a_folder_that_links_to_a_registry_has_that_registry(
    registry: Project, tmp_path: Path
) -> None:
    target = start_local_registry(registry, PORT)
    other = Project(tmp_path / "other", tmp_path / "other" / "state")
    other.state.mkdir(parents=True)
    other.registry.symlink_to(registry.registry)
    assert start_local_registry(other) == target
    assert local_registry_status(other).pid == local_registry_status(registry).pid
    assert credentials_for(project=other)(target.host) is not None
    assert stop_local_registry(other)
    assert running(registry) == []


def test_it_has_none_of_the_logins_of_who_started_it(
    registry: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "s", "HTTPS_PROXY": "http://me:s@h:1"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    start_local_registry(registry, PORT)
    environment = Path(f"/proc/{local_registry_status(registry).pid}/environ").read_bytes()
    names = {line.partition(b"=")[0].decode() for line in environment.split(b"\0") if line}
    assert names <= {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"}


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def refuses(host: str, credentials: CredentialsFor) -> bool:
    with RegistryClient(host, credentials) as client, pytest.raises(NoCredentialsError):
        put_oci_image(client, "of/another", "v1")
    with RegistryClient(host, credentials) as client, pytest.raises(NoCredentialsError):
        client.head("of/another", "v1")
    return True


def test_only_who_reads_its_files_can_push_or_pull(registry: Project) -> None:
    host = start_local_registry(registry, PORT).host
    assert refuses(host, anonymous)
    status = local_registry_status(registry)
    assert refuses(host, lambda _: Credentials(status.user, "guessed" * 5))
    private = {path.name: path.stat().st_mode & 0o777 for path in registry.registry.iterdir()}
    assert {
        name: private[name] for name in ("password", "htpasswd", "config.yml")
    } == dict.fromkeys(("password", "htpasswd", "config.yml"), 0o600)
    written = {*registry.registry.rglob("*")} - {status.password}
    secret = status.password.read_bytes().strip()
    assert not [path for path in written if path.is_file() and secret in path.read_bytes()]


def test_a_login_that_others_could_have_read_is_made_anew(registry: Project) -> None:
    host = start_local_registry(registry, PORT).host
    login = credentials_for(project=registry)
    before = login(host)
    password = local_registry_status(registry).password
    password.chmod(0o644)
    assert login(host) is None
    assert start_local_registry(registry).host == host
    after = login(host)
    assert before is not None
    assert after is not None
    assert before.secret != after.secret
    assert refuses(host, lambda _: before)
    password.unlink()
    assert start_local_registry(registry).host == host
    with RegistryClient(host, login) as client:
        put_oci_image(client, "of/ours", "v1")


def test_a_registry_of_an_earlier_version_gets_a_login_and_keeps_its_images(
    registry: Project,
) -> None:
    start_local_registry(registry, PORT)
    stop_local_registry(registry)
    server = RegistryServer(registry.registry)
    local_registry_status(registry).password.unlink()
    server.config.write_text(
        json.dumps({k: v for k, v in json.loads(server.config.read_text()).items() if k != "auth"})
    )
    server.launch("docker-registry")
    host = f"127.0.0.1:{server.port}"
    assert wait_until(lambda: _listens(server.port), 30)
    with RegistryClient(host, anonymous) as client:
        put = put_oci_image(client, "of/ours", "v1")
    assert start_local_registry(registry).host == host
    assert refuses(host, anonymous)
    with RegistryClient(host, credentials_for(project=registry)) as client:
        assert client.head("of/ours", "v1") == put.digest


def test_the_login_is_given_to_nobody_else(registry: Project) -> None:
    host = start_local_registry(registry, PORT).host
    login = credentials_for(project=registry)
    assert login(host)
    for other in ("127.0.0.1:1", f"[::1]:{PORT}", f"localhost:{PORT}", "registry.example"):
        assert login(other) is None
    stop_local_registry(registry)
    assert login(host) is None, "another user's program may have the port now"


def test_images_stay_over_down_and_up_and_the_port_is_kept(registry: Project) -> None:
    target = start_local_registry(registry)
    with RegistryClient(target.host, credentials_for(project=registry)) as client:
        put = put_oci_image(client, "kept/image", "v1")
    assert stop_local_registry(registry)
    assert not stop_local_registry(registry)
    assert local_registry_status(registry).running is False
    assert local_registry_status(registry).target == target
    assert start_local_registry(registry) == target
    with RegistryClient(target.host, credentials_for(project=registry)) as client:
        assert client.head("kept/image", "v1") == put.digest


def test_a_registry_that_was_killed_is_started_anew(registry: Project) -> None:
    target = start_local_registry(registry, PORT)
    pid = local_registry_status(registry).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert start_local_registry(registry, PORT) == target
    assert local_registry_status(registry).pid not in (None, pid)


def test_another_program_with_the_old_process_id_is_left_alone(registry: Project) -> None:
    start_local_registry(registry, PORT)
    stop_local_registry(registry)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (registry.registry / "pid").write_text(f"{other.pid}\n")
        assert not stop_local_registry(registry)
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0


def test_a_port_that_another_program_has_is_left_to_it(registry: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        target = start_local_registry(registry, taken)
        assert target.host != f"127.0.0.1:{taken}"
        assert local_registry_status(registry).running


def test_a_registry_of_another_project_on_our_port_is_not_taken_for_ours(
    registry: Project, tmp_path: Path
) -> None:
    other = Project(tmp_path, tmp_path / "another")
    try:
        taken = start_local_registry(other, PORT).host
        assert start_local_registry(registry, int(taken.rpartition(":")[2])).host != taken
    finally:
        stop_local_registry(other)


def test_two_ups_at_once_start_one_registry(registry: Project) -> None:
    targets: list[Target] = []
    threads = [
        threading.Thread(target=lambda: targets.append(start_local_registry(registry, PORT)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(targets) == 4
    assert len(set(targets)) == 1
    assert len(running(registry)) == 1


def test_a_registry_that_ends_at_once_is_told_with_its_last_words(
    registry: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker-registry"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RegistryUnavailableError, match="ended at once: out of luck") as failed:
        start_local_registry(registry, PORT)
    assert str(registry.registry / "registry.log") in str(failed.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(RegistryError, match="SLIPWAY_STATE"):
        start_local_registry(Project(tmp_path, tmp_path / "state"), PORT)


def test_a_host_without_the_program_is_told_what_to_install(
    registry: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RegistryError, match="docker-registry, which is not installed"):
        start_local_registry(registry, PORT)
