"""The second tag of an image, in a real registry: what AWS's snapshotter would ask it for.

The snapshotter itself needs containerd and FUSE and is not run here. In its place stands a reader
that was written from its schema and layouts; bench/soci_reference.py holds zTOCs to AWS's own code.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Event
from slipway.registry import (
    Manifest,
    ManifestError,
    RegistryClient,
    Repository,
    credentials_for,
    digest_of,
    prepare_repository,
    to_schema2,
)
from slipway.registry.manifests import OCI_MANIFEST, SCHEMA2
from slipway.soci import PublishedIndex, ZtocSources, put_soci_tag
from tests.support.registry.ecr_front_door import Door
from tests.support.registry.images import QUICK, put_blob, unique
from tests.support.ztoc_reader import ZtocReader

pytest_plugins = ["tests.support.registry.fixtures"]

INDEX = "application/vnd.oci.image.index.v1+json"
SOCI = "application/vnd.amazon.soci.index.v2+json"
NOTES = "com.amazon.soci."


@pytest.fixture
def ecr_side(door: Door) -> Iterator[Repository]:
    """A repository of an ECR, whose tags are immutable."""
    path = unique()
    prepare_repository(door.target, path)
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as client:
        yield Repository(client, path)


def layer(seed: int) -> bytes:
    """A tar of 30 files, 9 MB in all: three spans."""
    noise = random.Random(seed)
    words = [noise.randbytes(5) for _ in range(500)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(30):
            member = tarfile.TarInfo(f"opt/{seed}/{number}")
            data = b"".join(noise.choices(words, k=60_000 + number))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def put_image(repository: Repository, tag: str, layers: list[bytes]) -> Manifest:
    """The Docker schema 2 image that a push leaves."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"tag": tag}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in layers]},
    }
    client, path = repository.client, repository.path
    content = {
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **put_blob(client, path, json.dumps(config).encode()),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                **put_blob(client, path, gzip.compress(tar, 6, mtime=0)),
            }
            for tar in layers
        ],
    }
    raw = json.dumps(content).encode()
    image = to_schema2(Manifest(OCI_MANIFEST, digest_of(raw), raw))
    client.put_manifest(path, tag, image)
    return image


def documents(repository: Repository, tag: str) -> tuple[dict[str, Any], Manifest, Manifest]:
    """The index under a tag with the image and the SOCI index that it has."""
    index = repository.client.manifest(repository.path, tag)
    assert index.media_type == INDEX
    content = index.json()
    entries = content["manifests"]
    image, soci = (
        repository.client.manifest(repository.path, entry["digest"]) for entry in entries
    )
    for entry, manifest in zip(entries, (image, soci), strict=True):
        assert (entry["mediaType"], entry["size"]) == (manifest.media_type, len(manifest.raw))
    return content, image, soci


def ztocs(repository: Repository, soci: Manifest) -> dict[str, ZtocReader]:
    """The readers of a SOCI index, by layer."""
    client, path = repository.client, repository.path
    return {
        part["annotations"][f"{NOTES}image-layer-digest"]: ZtocReader(
            client.blob(path, part["digest"], part["size"])
        )
        for part in soci.json()["layers"]
    }


def fetch(repository: Repository, digest: str, start: int, end: int) -> bytes:
    """Some bytes of a blob, by a range request."""
    response = repository.client.request(
        "GET",
        repository.path,
        f"blobs/{digest}",
        headers={"Range": f"bytes={start}-{end - 1}"},
    )
    assert response.status_code == 206
    return response.content


def layer_reads(door: Door, image: Manifest) -> int:
    """How often layers of the image were asked for."""
    digests = "|".join(part["digest"] for part in image.json()["layers"])
    return len(door.faults.requests("GET", f"/blobs/({digests})"))


def sources(tmp_path: Path, **more: Any) -> ZtocSources:
    return ZtocSources(tmp_path / "ztoc", least=1 << 20, **more)


def test_files_of_every_layer_are_read_by_ranges_alone(
    ecr_side: Repository, tmp_path: Path
) -> None:
    tars = [layer(1), layer(2)]
    put = put_image(ecr_side, "v1", tars)
    result = put_soci_tag(ecr_side, "v1", sources(tmp_path))
    assert result
    assert (result.indexed, result.made, result.already) == (2, 2, False)
    assert ecr_side.client.manifest(ecr_side.path, "v1").media_type == SCHEMA2
    _, _, soci = documents(ecr_side, "v1-soci")
    noise = random.Random(5)
    for part, tar in zip(put.json()["layers"], tars, strict=True):
        reader = ztocs(ecr_side, soci)[part["digest"]]
        assert (reader.compressed_size, len(reader.points)) == (part["size"], 3)
        with tarfile.open(fileobj=io.BytesIO(tar)) as plain:
            for file in noise.sample(reader.files, 6):
                content = plain.extractfile(file.name.decode())
                assert content
                read = reader.read(file, partial(fetch, ecr_side, part["digest"]))
                assert read == content.read()


def test_the_image_and_its_index_name_each_other(ecr_side: Repository, tmp_path: Path) -> None:
    put = put_image(ecr_side, "v1", [layer(1)])
    assert put_soci_tag(ecr_side, "v1", sources(tmp_path))
    index, image, soci = documents(ecr_side, "v1-soci")
    first, second = index["manifests"]
    platform = {"architecture": "amd64", "os": "linux"}
    assert (first["platform"], second["platform"]) == (platform, platform)
    assert (first.get("artifactType"), second["artifactType"]) == (None, SOCI)
    bound = {f"{NOTES}index-digest": soci.digest}
    assert first["annotations"] == image.json()["annotations"] == bound
    assert second["annotations"] == {f"{NOTES}image-manifest-digest": image.digest}
    assert {manifest.media_type for manifest in (image, soci)} == {OCI_MANIFEST}
    # The same image: what is in it is told by the same blobs.
    for kind in ("config", "layers"):
        ours, theirs = image.json()[kind], put.json()[kind]
        listed = [ours] if kind == "config" else ours
        assert [(p["digest"], p["size"]) for p in listed] == [
            (p["digest"], p["size"]) for p in ([theirs] if kind == "config" else theirs)
        ]
    assert soci.json()["config"]["mediaType"] == SOCI
    (part,) = soci.json()["layers"]
    assert part["mediaType"] == "application/octet-stream"
    assert part["annotations"] == {
        f"{NOTES}image-layer-digest": put.json()["layers"][0]["digest"],
        f"{NOTES}image-layer-mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        f"{NOTES}span-size": str(4 << 20),
    }
    assert "subject" not in soci.json()


def test_a_layer_is_read_once_whoever_asks(
    door: Door, ecr_side: Repository, tmp_path: Path
) -> None:
    first = put_image(ecr_side, "v1", [layer(1)])
    assert put_soci_tag(ecr_side, "v1", sources(tmp_path / "a"))
    assert layer_reads(door, first) == 1
    again = put_soci_tag(ecr_side, "v1", sources(tmp_path / "b"))
    assert again
    assert (again.already, again.made, again.sent) == (True, 0, 0)
    # The next variant, from another machine: the new layer alone, from the file that it has.
    new = tmp_path / "layer"
    new.write_bytes(gzip.compress(layer(2), 6, mtime=0))
    second = put_image(ecr_side, "v2", [layer(1), layer(2)])
    files = {digest_of(new.read_bytes()): new}
    door.faults.clear()
    result = put_soci_tag(ecr_side, "v2", sources(tmp_path / "b", files=files))
    assert result
    assert (result.indexed, result.made) == (2, 1)
    assert layer_reads(door, second) == 0
    _, _, soci = documents(ecr_side, "v2-soci")
    assert set(ztocs(ecr_side, soci)) == {p["digest"] for p in second.json()["layers"]}


def test_what_the_makers_of_the_base_have_published_is_taken(
    door: Door, ecr_side: Repository, plain: RegistryClient, tmp_path: Path
) -> None:
    theirs = Repository(plain, unique())
    put_image(theirs, "base", [layer(1)])
    assert put_soci_tag(theirs, "base", sources(tmp_path / "theirs"))
    image = put_image(ecr_side, "v1", [layer(1), layer(2)])
    published = PublishedIndex(theirs, "base-soci")
    result = put_soci_tag(ecr_side, "v1", sources(tmp_path / "ours", published=published))
    assert result
    assert (result.indexed, result.made) == (2, 1)
    base, _ = image.json()["layers"]
    assert not door.faults.requests("GET", f"/blobs/{base['digest']}")


def test_a_base_without_a_published_index_or_a_login_is_read(
    ecr_side: Repository, plain: RegistryClient, tmp_path: Path
) -> None:
    put_image(ecr_side, "v1", [layer(1)])
    put_image(ecr_side, "v2", [layer(2)])
    missing = PublishedIndex(Repository(plain, unique()), "base-soci")
    result = put_soci_tag(ecr_side, "v1", sources(tmp_path, published=missing))
    assert result
    assert result.made == 1
    with RegistryClient("127.0.0.1:9", lambda host: None, policy=QUICK) as nobody:
        closed = PublishedIndex(Repository(nobody, "base"), "base-soci")
        events: list[Event] = []
        result = put_soci_tag(ecr_side, "v2", sources(tmp_path, published=closed), events.append)
    assert result
    assert result.made == 1
    assert any(event.kind == "notice" and "127.0.0.1:9" in event.text for event in events)


def test_two_at_once_leave_one_index(ecr_side: Repository, tmp_path: Path) -> None:
    put_image(ecr_side, "v1", [layer(1), layer(2)])
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(put_soci_tag, ecr_side, "v1", sources(tmp_path / name)) for name in "abc"
        ]
        results = [one.result() for one in asked]
    stands = ecr_side.client.head(ecr_side.path, "v1-soci")
    assert {result.digest for result in results if result} == {stands}


def test_a_layer_that_a_ztoc_cannot_describe_is_noted_and_not_read_again(
    door: Door, ecr_side: Repository, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}
    ) as tar:
        member = tarfile.TarInfo("big")
        member.size = 2 << 20
        tar.addfile(member, io.BytesIO(random.Random(1).randbytes(member.size)))
    odd = buffer.getvalue()
    for tag in ("v1", "v2"):
        put_image(ecr_side, tag, [layer(1), odd])
        result = put_soci_tag(ecr_side, tag, sources(tmp_path / tag))
        assert result
        assert result.indexed == 1
        assert result.made == (1 if tag == "v1" else 0)
    assert layer_reads(door, ecr_side.client.manifest(ecr_side.path, "v1")) == 2


def test_small_layers_get_no_second_tag(ecr_side: Repository, tmp_path: Path) -> None:
    put_image(ecr_side, "v1", [layer(1)])
    assert put_soci_tag(ecr_side, "v1", ZtocSources(tmp_path)) is None
    assert ecr_side.client.head(ecr_side.path, "v1-soci") is None


def test_a_second_tag_of_another_image_is_refused(ecr_side: Repository, tmp_path: Path) -> None:
    put_image(ecr_side, "v1", [layer(1)])
    put_image(ecr_side, "v1-soci", [layer(2)])
    with pytest.raises(ManifestError, match="another image is under this tag"):
        put_soci_tag(ecr_side, "v1", sources(tmp_path))
