"""Pull, push, load and import on a real engine, against a registry that refuses on demand."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Credentials, CredentialsFor, Event, Project, anonymous, silent, wait_until
from slipway.engine import (
    BARE,
    Engine,
    TransferError,
    connect,
    find_image_id,
    import_rootfs,
    inspect_image,
    pull_image,
    push_image_layers,
    run_once,
    stop_daemon,
)
from slipway.engine.errors import TransferKind
from slipway.engine.transfer import load_image_tar
from slipway.registry import RegistryClient, prepare_repository
from tests.support.registry.ecr_front_door import Door
from tests.support.tiny import rootfs_tar

pytest_plugins = ["tests.support.registry.fixtures"]

# Engines with containerd's store look at a transfer ten times a second, and tell nothing of a layer
# that came and went in between (moby/moby:daemon/containerd/progress.go).
LARGE = 60_000_000


def _tar(content: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


@contextmanager
def _image(engine: Engine, door: Door, size: int) -> Iterator[str]:
    """An image in the engine, named for a repository of the door that exists and is empty."""
    repository = f"t{uuid.uuid4().hex[:8]}/image"
    prepare_repository(door.target, repository)
    name = f"{door.host}/{repository}:v1"
    import_rootfs(engine, _tar(os.urandom(size)), name)
    yield name
    if find_image_id(engine, name) is not None:
        engine.client.api.remove_image(name, force=True)


@pytest.fixture
def reference(engine: Engine, door: Door) -> Iterator[str]:
    """A small one."""
    with _image(engine, door, 3_000_000) as name:
        yield name


@pytest.fixture
def large(engine: Engine, door: Door) -> Iterator[str]:
    """One of `LARGE` bytes."""
    with _image(engine, door, LARGE) as name:
        yield name


@pytest.fixture
def login(door: Door) -> CredentialsFor:
    return lambda host: Credentials("AWS", door.issue()[0]) if host == door.host else None


def _tag(engine: Engine, old: str, new: str) -> None:
    repository, _, tag = new.rpartition(":")
    assert engine.client.api.tag(old, repository, tag)


def test_a_push_gives_the_digest_that_the_registry_has(
    engine: Engine, large: str, login: CredentialsFor, plain: RegistryClient
) -> None:
    events: list[Event] = []
    digest = push_image_layers(engine, large, credentials=login, on_event=events.append)
    repository = large.partition("/")[2].removesuffix(":v1")
    assert plain.head(repository, "v1") == digest
    moved = [event for event in events if event.kind == "progress"]
    assert moved
    assert max(event.current for event in moved) >= LARGE
    assert all(0 < event.current <= event.total for event in moved)
    assert [event.kind for event in events if event.step] == ["done"]


def test_a_push_of_what_is_there_already_moves_no_layer(
    engine: Engine, reference: str, login: CredentialsFor, door: Door
) -> None:
    first = push_image_layers(engine, reference, credentials=login, on_event=silent)
    again = reference.replace(":v1", ":v2")
    _tag(engine, reference, again)
    door.faults.clear()
    events: list[Event] = []
    assert push_image_layers(engine, again, credentials=login, on_event=events.append) == first
    assert door.faults.uploaded() == 0
    assert [event.kind for event in events] == ["cached"]
    engine.client.api.remove_image(again)


def test_a_pull_by_tag_and_by_digest_gives_the_image(
    engine: Engine, large: str, login: CredentialsFor
) -> None:
    original = find_image_id(engine, large)
    assert original is not None
    digest = push_image_layers(engine, large, credentials=login, on_event=silent)
    repository = large.removesuffix(":v1")
    pinned = f"{repository}@{digest}"
    for wanted in (large, pinned, f"{large}@{digest}"):
        engine.client.api.remove_image(original, force=True)
        events: list[Event] = []
        assert pull_image(engine, wanted, credentials=login, on_event=events.append) == original
        moved = [event for event in events if event.kind == "progress"]
        assert moved[-1].current == moved[-1].total >= LARGE
    engine.client.api.remove_image(original, force=True)


def test_credentials_are_asked_for_at_each_transfer(engine: Engine, reference: str) -> None:
    asked: list[str] = []

    def credentials(host: str) -> None:
        asked.append(host)

    for transfer in (push_image_layers, pull_image):
        with pytest.raises(TransferError):
            transfer(engine, reference, credentials=credentials, on_event=silent)
    assert asked == [reference.partition("/")[0]] * 2


def _refused(call: Any, engine: Engine, reference: str, credentials: CredentialsFor) -> Any:
    with pytest.raises(TransferError) as caught:
        call(engine, reference, credentials=credentials, on_event=silent)
    assert caught.value.where == reference
    return caught.value


def test_wrong_credentials_are_unauthorized(engine: Engine, reference: str) -> None:
    # By pull alone: dockerd repeats a push that ends so five times, 50 s in all.
    error = _refused(pull_image, engine, reference, lambda host: Credentials("AWS", "wrong"))
    assert (error.kind, error.retry) == ("unauthorized", False)


@pytest.mark.parametrize("transfer", [push_image_layers, pull_image])
def test_no_credentials_where_they_are_wanted_is_unauthorized(
    engine: Engine, reference: str, transfer: Any
) -> None:
    assert _refused(transfer, engine, reference, anonymous).kind == "unauthorized"


def test_a_repository_that_does_not_exist_is_not_found(
    engine: Engine, reference: str, login: CredentialsFor, door: Door
) -> None:
    other = f"{door.host}/t{uuid.uuid4().hex[:8]}/none:v1"
    _tag(engine, reference, other)
    assert _refused(push_image_layers, engine, other, login).kind == "not_found"
    assert _refused(pull_image, engine, other, login).kind == "not_found"
    engine.client.api.remove_image(other)


def test_an_image_that_the_engine_does_not_have_is_not_found(
    engine: Engine, door: Door, login: CredentialsFor
) -> None:
    assert (
        _refused(push_image_layers, engine, f"{door.host}/never/built:v1", login).kind
        == "not_found"
    )


def test_a_tag_that_belongs_to_another_image_is_immutable(
    engine: Engine, reference: str, login: CredentialsFor
) -> None:
    push_image_layers(engine, reference, credentials=login, on_event=silent)
    engine.client.api.remove_image(reference, force=True)
    import_rootfs(engine, _tar(b"other"), reference)
    error = _refused(push_image_layers, engine, reference, login)
    assert (error.kind, error.retry) == ("immutable", False)


def test_a_token_that_expires_in_the_middle_is_told_as_such(
    engine: Engine, reference: str, login: CredentialsFor, door: Door
) -> None:
    door.fault("PUT", "/manifests/", "expire")
    error = _refused(push_image_layers, engine, reference, login)
    assert (error.kind, error.retry) == ("expired", True)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "retry"),
    [
        (403, "DENIED", "requested access to the resource is denied", "denied", False),
        (429, "TOOMANYREQUESTS", "Rate exceeded", "throttled", True),
        (500, "UNKNOWN", "unknown error", "server", True),
    ],
)
def test_a_refused_manifest_has_its_kind(
    engine: Engine,
    reference: str,
    login: CredentialsFor,
    door: Door,
    status: int,
    code: str,
    message: str,
    kind: TransferKind,
    retry: bool,
) -> None:
    # Again and again: engines with containerd's store repeat some of these by themselves.
    refusal = {"status": status, "code": code, "message": message}
    door.fault("PUT", "/manifests/", "status", count=20, **refusal)
    error = _refused(push_image_layers, engine, reference, login)
    assert (error.kind, error.retry) == (kind, retry)
    door.faults.clear()
    push_image_layers(engine, reference, credentials=login, on_event=silent)


def test_a_registry_that_is_not_there_is_a_network_error(engine: Engine) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        error = _refused(pull_image, engine, f"{host}/a:1", anonymous)
    assert (error.kind, error.retry) == ("network", True)


def test_an_import_has_its_files_and_its_changes(engine: Engine) -> None:
    name = f"slipway.test/{uuid.uuid4().hex}:1"
    changes = ['ENV A="b c"', 'ENTRYPOINT ["/bin/cat"]', "LABEL io.slipway.x=y"]
    image = import_rootfs(engine, io.BytesIO(rootfs_tar()), name, changes)
    config = inspect_image(engine, name)["Config"]
    assert find_image_id(engine, name) == image
    assert (config["Entrypoint"], config["Labels"]) == (["/bin/cat"], {"io.slipway.x": "y"})
    assert run_once(engine, name, ["/bin/true"], BARE, timeout_s=60).exit_code == 0


def test_an_import_of_what_is_no_tar_is_an_error(engine: Engine) -> None:
    with pytest.raises(TransferError):
        import_rootfs(engine, io.BytesIO(b"this is not a tar" * 100), "slipway.test/none:1")
    assert find_image_id(engine, "slipway.test/none:1") is None


def test_a_saved_image_loads_again(engine: Engine) -> None:
    name = f"slipway.test/{uuid.uuid4().hex}:1"
    image = import_rootfs(engine, _tar(b"saved"), name)
    with tempfile.TemporaryFile() as file:
        for chunk in engine.client.images.get(name).save(named=True):
            file.write(chunk)
        engine.client.api.remove_image(name, force=True)
        file.seek(0)
        assert load_image_tar(engine, file) == (name,)
    assert find_image_id(engine, name) == image


@contextmanager
def _small_disk(folder: Path) -> Iterator[Project]:
    file, point = folder / "disk.ext4", folder / "disk"
    with file.open("wb") as stream:
        stream.truncate(120 * 1000 * 1000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(file)], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", str(file), str(point)], check=True)
    project = Project(point, point / "state")
    try:
        yield project
    finally:
        stop_daemon(project)
        subprocess.run(["umount", str(point)], check=True)


def test_a_pull_that_fills_the_disk_says_so_and_leaves_the_disk_as_it_was(
    engine: Engine, reference: str, login: CredentialsFor, tmp_path: Path
) -> None:
    engine.client.api.remove_image(reference, force=True)
    import_rootfs(engine, _tar(os.urandom(150_000_000)), reference)
    push_image_layers(engine, reference, credentials=login, on_event=silent)
    with _small_disk(tmp_path) as project, closing(connect(project, "embedded")) as small:
        before = os.statvfs(small.data_root).f_bfree
        error = _refused(pull_image, small, reference, login)
        assert (error.kind, error.retry) == ("disk_full", False)
        assert small.data_root in error.what
        # containerd removes what nothing uses any more a moment later.
        assert wait_until(lambda: _taken(small, before) < 1_000_000, 60)


def _taken(engine: Engine, before: int) -> int:
    """Bytes of the engine's disk that were free when so many blocks were."""
    now = os.statvfs(engine.data_root)
    return (before - now.f_bfree) * now.f_frsize
