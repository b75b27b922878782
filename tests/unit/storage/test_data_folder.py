"""What lies in a data-root that exists nowhere else: found by its files, named and compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from slipway.engine import BoltFile
from slipway.storage import Machine, MoveOptions, StorageError
from slipway.storage.docker.data_folder import DataFolders
from slipway.storage.docker.inventory import (
    DockerInventory,
    daemon_at_rest,
    lost_objects,
    objects_since,
    take_inventory,
)
from slipway.storage.move.changes import enroot_containers
from slipway.storage.move.move_plan import mode_of
from tests.support.storage.bolt import Bucket, write_bolt
from tests.support.storage.records import through_json

NAMES = st.binary(min_size=1, max_size=20)
BUCKETS: st.SearchStrategy[Bucket] = st.recursive(
    st.dictionaries(NAMES, st.binary(max_size=60), max_size=8),
    lambda inner: st.dictionaries(NAMES, st.one_of(st.binary(max_size=60), inner), max_size=5),
    max_leaves=20,
)


def read(database: BoltFile, content: Bucket, *names: bytes) -> None:
    """Every bucket of the database has what was written."""
    found = dict(database.bucket(*names))
    assert sorted(found) == sorted(content)
    for key, value in content.items():
        if isinstance(value, bytes):
            assert found[key] == value
        else:
            read(database, value, *names, key)


@given(content=BUCKETS, inline=st.booleans(), leaf=st.integers(1, 4))
@settings(max_examples=60)
def test_a_bolt_database_is_read_whatever_its_shape(
    tmp_path_factory: pytest.TempPathFactory, content: Bucket, inline: bool, leaf: int
) -> None:
    path = tmp_path_factory.mktemp("bolt") / "db"
    write_bolt(path, content, inline=inline, leaf=leaf)
    read(BoltFile(path), content)
    assert list(BoltFile(path).bucket(b"not there", b"below")) == []


@pytest.mark.parametrize("damage", ["empty", "short", "metas", "pages"])
def test_a_damaged_database_is_an_error_and_not_empty(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "io.containerd.metadata.v1.bolt/meta.db"
    write_bolt(path, {b"v1": {b"k8s.io": {b"images": {b"a": b"1"}}}}, inline=False)
    assert DataFolders(tmp_path).other_namespaces() == {"k8s.io": "1 images"}
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "short": data[:100],
            "metas": b"\0" * 8192 + data[8192:],
            "pages": data[:8192] + b"\xff" * (len(data) - 8192),
        }[damage]
    )
    with pytest.raises(StorageError, match="bolt database"):
        DataFolders(tmp_path).other_namespaces()


def docker_root(root: Path) -> None:
    """A stopped daemon with one pulled image and nothing else."""
    content = root / "image/overlay2/imagedb/content/sha256"
    content.mkdir(parents=True)
    (content / "aa").write_text("{}")
    repositories = {"one": {"one:1": "sha256:aa", "one@sha256:dd": "sha256:aa"}}
    (root / "image/overlay2/repositories.json").write_text(
        json.dumps({"Repositories": repositories})
    )
    for name in ("buildkit", "containers", "overlay2", "runtimes", "tmp", "volumes", "swarm"):
        (root / name).mkdir()
    (root / "engine-id").write_text("x")


def add_network(root: Path) -> None:
    records = {
        b"docker/network/v1.0/network/" + str(number).encode() + b"/": b"\0" * 8
        + json.dumps({"name": name, "networkType": "bridge", "scope": "local"}).encode()
        for number, name in enumerate(("bridge", "none", "host", "mine"))
    }
    write_bolt(root / "network/files/local-kv.db", {b"libnetwork": records})


def add_own_image(root: Path) -> None:
    path = root / "image/overlay2/repositories.json"
    (root / "image/overlay2/imagedb/content/sha256/bb").write_text('{"config": {"Labels": null}}')
    data = json.loads(path.read_text())
    data["Repositories"]["made"] = {"made:1": "sha256:bb"}
    path.write_text(json.dumps(data))


def add_namespace(root: Path) -> None:
    write_bolt(
        root / "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
        {
            b"v1": {
                b"version": b"\x03",
                b"moby": {b"images": {}, b"leases": {b"l": b""}},
                b"idle": {b"images": {}},
                b"k8s.io": {b"images": {b"a": b"", b"b": b""}, b"leases": {b"l": b""}},
            }
        },
    )


def add_plugin(root: Path) -> None:
    (root / "plugins/c0ffee").mkdir(parents=True)
    (root / "plugins/c0ffee/config.json").write_text('{"plugin": {"Name": "vieux/sshfs:latest"}}')


def add_file(relative: str) -> Callable[[Path], None]:
    def add(root: Path) -> None:
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_text("mine")

    return add


KINDS = {
    "1 volumes": lambda root: (root / "volumes/v").mkdir(),
    "1 containers": lambda root: (root / "containers/c0ffee").mkdir(),
    "1 images of no registry (made:1)": add_own_image,
    "1 networks (mine)": add_network,
    "1 plugins (vieux/sshfs:latest)": add_plugin,
    "membership in a swarm": add_file("swarm/docker-state.json"),
    "containerd namespace k8s.io (2 images, 1 leases)": add_namespace,
    "1 other files (backup.tar)": add_file("backup.tar"),
    "1 other files (100000.100000)": add_file("100000.100000/volumes/x"),  # user namespaces
}


def test_what_can_be_made_again_is_not_kept_for_its_own_sake(tmp_path: Path) -> None:
    docker_root(tmp_path)
    found = daemon_at_rest(DataFolders(tmp_path))
    assert found is not None
    assert found.irreplaceable == ""
    assert mode_of(MoveOptions(), found) == "fresh"


@pytest.mark.parametrize("what", KINDS)
def test_what_exists_nowhere_else_is_named_copied_and_missed(tmp_path: Path, what: str) -> None:
    docker_root(tmp_path)
    plain = daemon_at_rest(DataFolders(tmp_path))
    KINDS[what](tmp_path)
    found = daemon_at_rest(DataFolders(tmp_path))
    assert found is not None
    assert plain is not None
    assert found.irreplaceable == what
    alone = (
        "no registry" not in what
    )  # the others stay in the old place, where they can be built from
    assert mode_of(MoveOptions(), found) == ("copy" if alone else "fresh")
    assert mode_of(MoveOptions(delete_old=True), found) == "copy"
    assert len(lost_objects(found, plain)) == 1
    assert objects_since(plain, found) == lost_objects(found, plain)
    assert through_json(found) == found


def content_store(root: Path) -> None:
    """Two images as the containerd store has them: a pulled one, and one that was built here."""
    blobs: Bucket = {
        b"sha256:aa": {b"labels": {b"containerd.io/distribution.source.docker.io": b"library/x"}},
        b"sha256:bb": {b"labels": {b"containerd.io/gc.ref.content.config": b"sha256:cc"}},
    }
    images: Bucket = {b"docker.io/library/x:1": {}, b"docker.io/library/made:1": {}}
    write_bolt(
        root / "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
        {b"v1": {b"moby": {b"images": images, b"content": {b"blob": blobs}}}},
    )


def test_what_a_containerd_store_has_of_its_own_is_known_by_its_content(tmp_path: Path) -> None:
    """There every image has a digest under its name, as Docker 28 with it was seen to say."""
    content_store(tmp_path)
    listed = [
        {"Id": f"sha256:{identity}", "RepoTags": [tag], "RepoDigests": [f"{tag}@sha256:{identity}"]}
        for identity, tag in (("aa", "x:1"), ("bb", "made:1"))
    ]
    api = mock.Mock(
        images=lambda all: listed,
        volumes=lambda: {"Volumes": None},
        containers=lambda all: [],
        networks=list,
        plugins=list,
        info=lambda: {"Driver": "overlayfs"},
    )
    engine = mock.Mock(client=mock.Mock(api=api), containerd_store=True)
    assert take_inventory(engine, DataFolders(tmp_path)).own_images == ("made:1",)


def test_a_stopped_daemon_with_images_in_containerd_is_copied_whole(tmp_path: Path) -> None:
    docker_root(tmp_path)  # as a daemon that had the graph driver before left it
    content_store(tmp_path)
    assert daemon_at_rest(DataFolders(tmp_path)) is None
    assert mode_of(MoveOptions(delete_old=True), None) == "copy"


def test_images_that_slipway_built_can_be_built_again(tmp_path: Path) -> None:
    docker_root(tmp_path)
    add_own_image(tmp_path)
    labels = '{"config": {"Labels": {"io.slipway.build-id": "x"}}}'
    (tmp_path / "image/overlay2/imagedb/content/sha256/bb").write_text(labels)
    found = daemon_at_rest(DataFolders(tmp_path))
    assert found is not None
    assert found.own_images == ()


def test_a_swarm_managers_secrets_are_named_and_compared() -> None:
    plain = DockerInventory("overlay2", {}, (), {}, ())
    manager = replace(plain, swarm=True, secrets=("a", "b"), configs=("c",), services=("s",))
    assert manager.irreplaceable == (
        "membership in a swarm (2 secrets (a, b), 1 configs (c) and 1 services (s))"
    )
    assert lost_objects(manager, plain) == (
        "swarm this node's membership",
        "secret a",
        "secret b",
        "config c",
        "service s",
    )


def test_an_inventory_of_an_earlier_version_is_still_read() -> None:
    old = {
        "driver": "overlay2",
        "images": {"sha256:a": ["one:1"]},
        "volumes": ["v"],
        "containers": {},
        "running": [],
        "transient": [],
    }
    assert TypeAdapter(DockerInventory).validate_python(old) == DockerInventory(
        "overlay2", {"sha256:a": ("one:1",)}, ("v",), {}, ()
    )


def test_a_namespace_that_this_docker_was_told_to_use_is_its_own(tmp_path: Path) -> None:
    add_namespace(tmp_path)
    assert DataFolders(tmp_path, None, ("k8s.io", "moby")).other_namespaces() == {}


def test_a_containerd_root_has_its_own_layout(tmp_path: Path) -> None:
    for name in ("io.containerd.content.v1.content", "tmpmounts", "backups"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    assert DataFolders(tmp_path / "none", tmp_path).foreign_entries() == ("backups",)


@pytest.mark.parametrize(
    ("configured", "home"),
    [
        (None, "root/.local/share/enroot"),
        (None, "home/me/.local/share/enroot"),
        ("/tmp/enroot/data/user-$(id -u)", "tmp/enroot/data/user-1000"),
        ("${MNT}/enroot/$UID", "anything/enroot/0"),
        ("/data/enroot", "data/enroot"),
    ],
)
def test_enroots_containers_are_found_where_its_shell_puts_them(
    tmp_path: Path, configured: str | None, home: str
) -> None:
    assert enroot_containers(Machine(tmp_path), configured) == ()
    (tmp_path / home / "my-container").mkdir(parents=True)
    assert enroot_containers(Machine(tmp_path), configured) == (tmp_path / home / "my-container",)
