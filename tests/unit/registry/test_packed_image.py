"""An engine's image as blobs: what is compressed here, what the base's registry has."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slipway.core import Event, silent
from slipway.registry import (
    BlobTransfer,
    FileBlob,
    ImagePacker,
    RegistryBlob,
    RegistryClient,
    Repository,
    digest_of,
    packed_layers,
)
from slipway.registry.manifests import SCHEMA2
from tests.support.overlay_images import (
    content_engine,
    engine_at,
    overlay_layer,
    put_content_image,
    put_overlay_image,
)


@pytest.fixture
def target() -> Repository:
    with RegistryClient("127.0.0.1:9", lambda host: None) as client:
        return Repository(client, "ours")


def test_a_layer_is_compressed_once(tmp_path: Path, target: Repository) -> None:
    tars = [overlay_layer(b"one"), overlay_layer(b"two")]
    engine, image = engine_at(tmp_path / "engine"), put_overlay_image(tmp_path / "engine", tars)
    packer = ImagePacker(tmp_path / "packed", dict)
    packed = packer.pack(engine, image, target, "push", silent)
    assert packed
    assert packed.manifest.media_type == SCHEMA2
    content = packed.manifest.json()
    blobs = {blob.digest: b"".join(blob.source.open(0)) for blob in packed.blobs}
    assert {digest_of(data) for data in blobs.values()} == set(blobs)
    assert [gzip.decompress(blobs[part["digest"]]) for part in content["layers"]] == tars
    assert digest_of(blobs[content["config"]["digest"]]) == image
    assert set(packed_layers(tmp_path / "packed")) == {p["digest"] for p in content["layers"]}
    events: list[Event] = []
    assert packer.pack(engine, image, target, "push", events.append) == packed
    assert events == []
    # Another machine: the same digest, so that nothing is sent there again.
    elsewhere = ImagePacker(tmp_path / "elsewhere", dict).pack(engine, image, target, "p", silent)
    assert elsewhere
    assert elsewhere.manifest == packed.manifest
    # A blob that was damaged in part is made anew.
    path = tmp_path / "packed" / content["layers"][0]["digest"][7:]
    path.write_bytes(path.read_bytes()[:-1])
    assert packer.pack(engine, image, target, "push", silent) == packed
    assert digest_of(path.read_bytes()) == content["layers"][0]["digest"]


def test_the_layers_of_the_base_are_those_of_its_registry(
    tmp_path: Path, target: Repository
) -> None:
    tars = [overlay_layer(b"base"), overlay_layer(b"own")]
    engine, image = engine_at(tmp_path / "engine"), put_overlay_image(tmp_path / "engine", tars)
    theirs = digest_of(b"as the registry has it")
    base = {digest_of(tars[0]): RegistryBlob(Repository(target.client, "base"), theirs, 77)}
    packed = ImagePacker(tmp_path / "packed", lambda: base).pack(
        engine, image, target, "push", silent
    )
    assert packed
    first, second = packed.manifest.json()["layers"]
    assert (first["digest"], first["size"]) == (theirs, 77)
    blobs = {blob.digest: blob for blob in packed.blobs}
    assert blobs[theirs].mount_from == "base"
    assert gzip.decompress(b"".join(blobs[second["digest"]].source.open(0))) == tars[1]
    assert len(list((tmp_path / "packed").glob("*.json"))) == 1


def test_a_layer_that_was_made_here_goes_as_it_was_made(tmp_path: Path, target: Repository) -> None:
    tars = [overlay_layer(b"base"), overlay_layer(b"own")]
    engine, image = engine_at(tmp_path / "engine"), put_overlay_image(tmp_path / "engine", tars)
    path = tmp_path / "own.gz"
    path.write_bytes(gzip.compress(tars[1], 9, mtime=0))
    made = BlobTransfer(digest_of(path.read_bytes()), path.stat().st_size, FileBlob(path))
    packer = ImagePacker(tmp_path / "packed", dict, {digest_of(tars[1]): made})
    packed = packer.pack(engine, image, target, "push", silent)
    assert packed
    assert packed.manifest.json()["layers"][1]["digest"] == made.digest
    assert len(list((tmp_path / "packed").glob("*.json"))) == 1


def test_containerds_blobs_go_as_they_are(tmp_path: Path, target: Repository) -> None:
    tars = [overlay_layer(b"base"), overlay_layer(b"own")]
    image, _ = put_content_image(tmp_path / "engine", tars)
    engine = content_engine(tmp_path / "engine", tars)
    packer = ImagePacker(tmp_path / "packed", dict)
    packed = packer.pack(engine, image, target, "push", silent)
    assert packed
    assert packed.manifest.media_type == SCHEMA2
    blobs = {blob.digest: b"".join(blob.source.open(0)) for blob in packed.blobs}
    parts = packed.manifest.json()["layers"]
    assert [gzip.decompress(blobs[part["digest"]]) for part in parts] == tars
    assert not (tmp_path / "packed").exists()
    # What the base's registry has is not read off the disk, and may be gone from there.
    first = parts[0]
    (path,) = (tmp_path / "engine").rglob(first["digest"][7:])
    path.unlink()
    assert packer.pack(engine, image, target, "push", silent) is None
    theirs = RegistryBlob(Repository(target.client, "base"), first["digest"], first["size"])
    packer = ImagePacker(tmp_path / "packed", lambda: {digest_of(tars[0]): theirs})
    again = packer.pack(engine, image, target, "push", silent)
    assert again
    assert again.manifest == packed.manifest
    assert {blob.digest: blob.mount_from for blob in again.blobs}[first["digest"]] == "base"


def test_layers_that_schema_2_does_not_have_are_the_engines_to_send(
    tmp_path: Path, target: Repository
) -> None:
    tars = [overlay_layer(b"one")]
    image, _ = put_content_image(tmp_path / "engine", tars, packed=False)
    engine = content_engine(tmp_path / "engine", tars)
    assert ImagePacker(tmp_path / "packed", dict).pack(engine, image, target, "p", silent) is None
