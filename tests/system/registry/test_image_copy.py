"""Images from registry to registry: two real ones on loopback, and a door that breaks things."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Event, SlipwayError, anonymous, silent
from slipway.registry import (
    BlobTransfer,
    Manifest,
    MemoryBlob,
    RegistryClient,
    credentials_for,
    deliver_blobs,
    digest_of,
    prepare_repository,
)
from slipway.registry.distribution.blob_transfer import Repository
from slipway.registry.distribution.blob_upload import PIECE
from slipway.registry.distribution.image_copy import copy_image
from slipway.registry.errors import ManifestError, RegistryError
from tests.support.registry.ecr_front_door import Door
from tests.support.registry.images import QUICK, put_blob, put_oci_image, unique
from tests.support.registry.open_registry import open_registry

pytest_plugins = ["tests.support.registry.fixtures"]


@pytest.fixture(scope="module")
def other_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second registry, with storage of its own."""
    with open_registry(tmp_path_factory.mktemp("other")) as host:
        yield host


@pytest.fixture
def other(other_registry: str) -> Iterator[RegistryClient]:
    with RegistryClient(other_registry, anonymous, policy=QUICK) as client:
        yield client


@pytest.fixture
def ecr_side(door: Door) -> Iterator[Repository]:
    """A repository behind the door, whose data is in the first registry."""
    path = unique()
    prepare_repository(door.target, path)
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as client:
        yield Repository(client, path)


def large_image(client: RegistryClient, path: str, size: int) -> Manifest:
    """An image with one layer of `size` bytes that nobody has seen (not a tar: nobody unpacks)."""
    layer = put_blob(client, path, os.urandom(size))
    config = put_blob(
        client, path, json.dumps({"rootfs": {"diff_ids": [layer["digest"]]}}).encode()
    )
    kind = "application/vnd.oci.image.manifest.v1+json"
    content = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
    raw = json.dumps(content).encode()
    manifest = Manifest(kind, digest_of(raw), raw)
    client.put_manifest(path, "v1", manifest)
    return manifest


def test_a_copy_has_the_digest_of_the_original_and_a_second_one_sends_nothing(
    other: RegistryClient, ecr_side: Repository, door: Door
) -> None:
    path = unique()
    put = put_oci_image(other, path, "v1", seed=path)
    result = copy_image(Repository(other, path), "v1", ecr_side, "v1")
    assert (result.digest, result.sent, result.already) == (put.digest, put.size, False)
    assert ecr_side.client.manifest(ecr_side.path, "v1") == put
    assert door.faults.uploaded() == put.size
    again = copy_image(Repository(other, path), "v1", ecr_side, "v1")
    assert (again.sent, again.already) == (0, True)
    assert door.faults.uploaded() == put.size


def test_a_target_is_prepared_when_the_source_was_read_and_only_then(
    other: RegistryClient, ecr_side: Repository
) -> None:
    path = unique()
    prepared: list[str] = []
    source = Repository(other, path)
    with pytest.raises(RegistryError):
        copy_image(source, "v1", ecr_side, prepare=lambda: prepared.append("missing"))
    put_oci_image(other, path, "v1", seed=path)
    copy_image(source, "v1", ecr_side, "v1", prepare=lambda: prepared.append("first"))
    copy_image(source, "v1", ecr_side, "v1", prepare=lambda: prepared.append("again"))
    assert prepared == ["first"]


def test_within_a_registry_blobs_are_mounted(other: RegistryClient) -> None:
    source, target = unique(), unique()
    put = put_oci_image(other, source, "v1", seed=source)
    result = copy_image(Repository(other, source), put.digest, Repository(other, target))
    assert result.sent == 0
    assert other.manifest(target, put.digest) == put
    assert other.config(target, put) == other.config(source, put)


def test_a_registry_that_does_not_mount_is_sent_the_blobs(ecr_side: Repository, door: Door) -> None:
    source = unique()
    prepare_repository(door.target, source)
    put = put_oci_image(ecr_side.client, source, "v1", seed=source)
    result = copy_image(Repository(ecr_side.client, source), "v1", ecr_side, "v1")
    assert result.sent == put.size  # ECR with blob mounting off


def test_bytes_that_a_registry_could_have_mounted_are_said(
    ecr_side: Repository, door: Door
) -> None:
    events: list[Event] = []
    layer = random.Random(3).randbytes(17_000_000)
    source = unique()
    prepare_repository(door.target, source)
    with RegistryClient(
        door.host, credentials_for([door.target]), policy=QUICK, on_event=events.append
    ) as client:
        target = Repository(client, ecr_side.path)
        for repository, mount_from in ((Repository(client, source), None), (target, source)):
            blob = BlobTransfer(digest_of(layer), len(layer), MemoryBlob(layer), mount_from)
            assert deliver_blobs(repository, [blob], "push", silent).sent == len(layer)
        blob = BlobTransfer(digest_of(layer), len(layer), MemoryBlob(layer), source)
        assert deliver_blobs(target, [blob], "push", silent).sent == 0
    assert [event.text for event in events if event.step == "mount"] == [
        f"17 MB that {source} has were sent again, as they were not mounted"
    ]


def test_an_index_is_copied_with_all_its_images(other: RegistryClient, data_registry: str) -> None:
    path = unique()
    images = [put_oci_image(other, path, f"v{n}", seed=f"{path}{n}") for n in range(3)]
    kind = "application/vnd.oci.image.index.v1+json"
    entries = [{"digest": m.digest, "size": len(m.raw), "mediaType": m.media_type} for m in images]
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    index = Manifest(kind, digest_of(raw), raw)
    other.put_manifest(path, "all", index)
    with RegistryClient(data_registry, anonymous, policy=QUICK) as client:
        copy_image(Repository(other, path), "all", Repository(client, path), "all")
        assert client.manifest(path, "all") == index
        assert [client.manifest(path, m.digest) for m in images] == images


@pytest.mark.parametrize(
    "fault",
    [
        ("PATCH", "/uploads/", "reset", {}),
        ("PATCH", "/uploads/", "reset", {"count": 4}),
        ("PATCH", "/uploads/", "lose", {}),
        ("PATCH", "/uploads/", "status", {"status": 500}),
        ("PATCH", "/uploads/", "status", {"status": 429, "retry_after": "0"}),
        ("PATCH", "/uploads/", "expire", {}),
        ("POST", "/uploads/", "status", {"status": 503, "count": 2}),
        ("PUT", "/uploads/", "lose", {}),
        ("PUT", "/uploads/", "reset", {}),
        ("PUT", "/uploads/", "status", {"status": 500}),
        ("PUT", "/uploads/", "status", {"status": 429, "retry_after": "0"}),
        ("PUT", "/uploads/", "expire", {}),
        ("PUT", "/manifests/", "status", {"status": 429}),
        ("PUT", "/manifests/", "reset", {}),
        ("PUT", "/manifests/v1$", "lose", {}),  # the tag is ours then, and does not move
        ("HEAD", "/blobs/", "status", {"status": 429}),
    ],
)
def test_a_copy_survives_and_sends_hardly_more_than_it_must(
    other: RegistryClient,
    ecr_side: Repository,
    door: Door,
    fault: tuple[str, str, str, dict[str, object]],
) -> None:
    method, path, action, rest = fault
    source = Repository(other, unique())
    put = large_image(other, source.path, 2 * PIECE + 1000)
    rule = door.fault(method, path, action, **rest)
    copy_image(source, "v1", ecr_side, "v1")
    assert rule.met == rest.get("count", 1)
    assert ecr_side.client.manifest(ecr_side.path, "v1") == put
    layer = put.json()["layers"][0]
    content = b"".join(ecr_side.client.blob_stream(ecr_side.path, layer["digest"], layer["size"]))
    assert digest_of(content) == layer["digest"]
    once_more = PIECE * int(str(rest.get("count", 1)))  # the pieces that were refused or cut
    assert door.faults.uploaded() <= put.size + once_more


def test_what_the_source_gives_wrongly_gets_no_tag(
    other: RegistryClient, ecr_side: Repository, door: Door
) -> None:
    source = unique()
    prepare_repository(door.target, source)
    large_image(ecr_side.client, source, PIECE // 2)
    door.fault("GET", "/blobs/", "corrupt", count=99)
    with pytest.raises(ManifestError, match="digest"):
        copy_image(Repository(ecr_side.client, source), "v1", Repository(other, unique()), "v1")


def test_a_run_after_a_failure_goes_on_from_the_blobs_that_arrived(
    other: RegistryClient, ecr_side: Repository, door: Door
) -> None:
    source = Repository(other, unique())
    put = large_image(other, source.path, PIECE)
    door.fault("PUT", "/manifests/", "status", status=500, count=99)
    with pytest.raises(SlipwayError):
        copy_image(source, "v1", ecr_side, "v1")
    assert ecr_side.client.head(ecr_side.path, "v1") is None
    door.faults.clear()
    result = copy_image(source, "v1", ecr_side, "v1")
    assert (result.sent, door.faults.uploaded()) == (0, 0)
    assert ecr_side.client.manifest(ecr_side.path, "v1") == put


def test_memory_does_not_grow_with_the_blob(
    other: RegistryClient, data_registry: str, tmp_path: Path
) -> None:
    source = Repository(other, unique())
    large_image(other, source.path, 96 << 20)
    with RegistryClient(data_registry, anonymous, policy=QUICK) as client:
        tracemalloc.start()
        copy_image(source, "v1", Repository(client, unique()), "v1")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * PIECE + (8 << 20)
