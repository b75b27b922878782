"""Artefacts beside images, in a real registry that does not find referrers itself, and in ECR."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slipway.core import EntryFaults, anonymous
from slipway.registry import (
    Artefact,
    ArtefactFile,
    Manifest,
    ManifestError,
    RegistryClient,
    Repository,
    credentials_for,
    list_artefacts,
    prepare_repository,
    put_artefacts,
    read_artefact_file,
    referrers_tag,
)
from tests.support.registry.ecr_front_door import Door
from tests.support.registry.images import QUICK, put_oci_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]

BILL = Artefact("application/spdx+json", (ArtefactFile("a.json", "application/spdx+json", b"{1}"),))
BUILD = Artefact(
    "application/vnd.build",
    (ArtefactFile("cell.json", "application/json", b"{}"), ArtefactFile("log", "text/plain", b"x")),
)


@pytest.fixture
def repository(data_registry: str) -> Iterator[Repository]:
    with RegistryClient(data_registry, anonymous, policy=QUICK) as client:
        yield Repository(client, unique())


@pytest.fixture
def image(repository: Repository) -> Manifest:
    return put_oci_image(repository.client, repository.path, "one")


def kinds(repository: Repository, image: Manifest) -> list[str]:
    return [artefact.kind for artefact in list_artefacts(repository, image.digest, EntryFaults())]


def test_artefacts_are_read_back_with_their_files_and_put_once(
    repository: Repository, image: Manifest
) -> None:
    first = put_artefacts(repository, image, [BILL, BUILD])
    assert put_artefacts(repository, image, [BILL, BUILD]) == first
    read = list_artefacts(repository, image.digest, EntryFaults())
    assert [each.kind for each in read] == [BILL.kind, BUILD.kind]
    for stored, put in zip(read, (BILL, BUILD), strict=True):
        assert [(file.title, read_artefact_file(repository, file)) for file in stored.files] == [
            (file.title, file.content) for file in put.files
        ]
    assert sorted(each.digest for each in read) == sorted(first)
    assert repository.client.head(repository.path, "one") == image.digest
    subject = repository.client.manifest(repository.path, first[0]).json()["subject"]
    assert (subject["digest"], subject["size"]) == (image.digest, len(image.raw))


def test_another_writer_between_reading_and_writing_loses_nothing(
    repository: Repository, image: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = repository.client
    put_artefacts(repository, image, [BUILD])
    without = client.manifest(repository.path, referrers_tag(image.digest))
    put = client.put_manifest
    late = iter([True])

    def interrupted(path: str, reference: str, manifest: Manifest) -> str:
        digest = put(path, reference, manifest)
        if reference == referrers_tag(image.digest) and next(late, False):
            put(path, reference, without)  # the other has read before and writes after us
        return digest

    monkeypatch.setattr(client, "put_manifest", interrupted)
    put_artefacts(repository, image, [BILL])
    assert kinds(repository, image) == [BILL.kind, BUILD.kind]


def test_a_file_that_could_not_be_read_back_is_not_put(
    repository: Repository, image: Manifest
) -> None:
    large = Artefact("x", (ArtefactFile("log", "text/plain", b"x" * ((8 << 20) + 1)),))
    with pytest.raises(ManifestError, match="log is too large"):
        put_artefacts(repository, image, [large])
    assert kinds(repository, image) == []


def test_ecr_finds_what_refers_to_an_image_and_no_tag_is_taken_for_it(door: Door) -> None:
    path = unique()
    prepare_repository(door.target, path)
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as client:
        image = put_oci_image(client, path, "one")
        for artefact in (BILL, BUILD):  # one after the other: an immutable tag could not take both
            put_artefacts(Repository(client, path), image, [artefact])
        assert kinds(Repository(client, path), image) == [BILL.kind, BUILD.kind]
        assert client.tags(path) == ["one"]
