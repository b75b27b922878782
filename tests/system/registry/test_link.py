"""Pushes through a link that is cut anywhere; the whole table is `bench.push_faults`."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from slipway.core import CredentialsFor, Project, silent
from slipway.registry import (
    OCI_MANIFEST,
    BlobDelivery,
    BlobTransfer,
    Manifest,
    MemoryBlob,
    RegistryClient,
    Repository,
    RetryPolicy,
    credentials_for,
    deliver_blobs,
    digest_of,
    prepare_repository,
    start_local_registry,
    stop_local_registry,
)
from slipway.registry.distribution import blob_upload
from slipway.registry.errors import ManifestError, RegistryError
from tests.support.registry.ecr_front_door import Door
from tests.support.registry.images import QUICK, unique
from tests.support.registry.link import Link, linked

pytest_plugins = ["tests.support.registry.fixtures"]

SIZES = [900_000, 300_000, *[20_000] * 6]


@dataclass(frozen=True)
class Pushed:
    """An image, and how it is pushed."""

    blobs: list[BlobTransfer]
    manifest: Manifest

    @classmethod
    def make(cls, noise: random.Random) -> Pushed:
        layers = [noise.randbytes(size) for size in SIZES]
        config = json.dumps({"rootfs": {"diff_ids": [digest_of(data) for data in layers]}}).encode()
        *parts, last = [{"digest": digest_of(b), "size": len(b)} for b in (*layers, config)]
        content = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": last, "layers": parts}
        raw = json.dumps(content).encode()
        blobs = [BlobTransfer(digest_of(b), len(b), MemoryBlob(b)) for b in (*layers, config)]
        return cls(blobs, Manifest(OCI_MANIFEST, digest_of(raw), raw))

    def push(self, target: Repository) -> None:
        deliver_blobs(target, self.blobs, "push", silent)
        target.put_tagged("v1", self.manifest)

    def is_whole(self, target: Repository) -> bool:
        """Read by somebody who pulls: every blob, with its digest."""
        assert target.client.manifest(target.path, "v1") == self.manifest
        for blob in self.blobs:
            content = b"".join(target.client.blob_stream(target.path, blob.digest, blob.size))
            assert digest_of(content) == blob.digest
        return True


@pytest.fixture(scope="module")
def own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A registry whose files the test may take away."""
    root = tmp_path_factory.mktemp("linked")
    project = Project(root, root)
    yield project
    stop_local_registry(project)


@pytest.fixture
def link(own_registry: Project) -> Iterator[Link]:
    with linked(start_local_registry(own_registry, 5885).host) as made:
        yield made


@pytest.fixture
def login(own_registry: Project, link: Link) -> CredentialsFor:
    """The registry's own login, by whichever host it is reached."""
    del link  # which has it started
    known = credentials_for(project=own_registry)("127.0.0.1:5885")
    assert known
    return lambda _: known


@pytest.fixture
def target(link: Link, login: CredentialsFor) -> Iterator[Repository]:
    with RegistryClient(link.host, login, policy=QUICK) as client:
        yield Repository(client, unique())


def test_a_push_survives_cuts_anywhere_and_sends_at_most_the_cut_blobs_again(
    link: Link, login: CredentialsFor
) -> None:
    noise = random.Random(5)
    image = Pushed.make(noise)
    flawless = 0
    for cut in (False, *[True] * 12):
        edges, total = link.edges, link.sent + link.received
        # Anywhere, and where one of a message's pieces has just passed.
        link.clear(*((noise.randrange(total), noise.choice(edges)) if cut else ()))
        with RegistryClient(link.host, login, policy=QUICK) as client:
            target = Repository(client, unique())
            image.push(target)
            flawless = flawless or link.sent
            # A registry loses the blob whose piece came in part, and heads are sent anew.
            assert link.sent <= flawless + 2 * max(SIZES) + 20_000
            link.clear()
            assert image.is_whole(target)


def test_a_push_survives_a_registry_that_loses_its_sessions_or_itself(
    link: Link, target: Repository, own_registry: Project, login: CredentialsFor
) -> None:
    image = Pushed.make(random.Random(6))

    def forget() -> None:
        for folder in (own_registry.registry / "storage").rglob("_uploads"):
            shutil.rmtree(folder, ignore_errors=True)

    def restart() -> None:
        stop_local_registry(own_registry)
        start_local_registry(own_registry, 5885)

    for number, trouble in enumerate((forget, restart)):
        with RegistryClient(link.host, login) as client:
            repository = Repository(client, f"{target.path}-{number}")
            link.clear(rate=1e6)  # a second and a half for all of it
            with troubled(link, trouble):
                image.push(repository)
            link.clear()
            assert image.is_whole(repository)


@contextlib.contextmanager
def troubled(link: Link, trouble: Callable[[], None]) -> Iterator[None]:
    """Make trouble once, as soon as a third of the image has been sent."""
    ended = threading.Event()

    def wait() -> None:
        while link.sent < sum(SIZES) // 3 and not ended.wait(0.01):
            pass
        trouble()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_two_pushes_of_one_image_at_once_leave_one_whole_image(target: Repository) -> None:
    image = Pushed.make(random.Random(7))
    failures: list[Exception] = []

    def push() -> None:
        try:
            image.push(target)
        except Exception as error:  # noqa: BLE001 - said below
            failures.append(error)

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert image.is_whole(target)


def test_a_push_that_was_ended_and_is_run_again_sends_nothing_twice(
    link: Link, login: CredentialsFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_upload, "PIECE", 100_000)
    image = Pushed.make(random.Random(10))

    def pushed(target_path: str, blobs: list[BlobTransfer]) -> int:
        """Bytes that a push of these sends; each is a run of its own."""
        link.clear()
        with RegistryClient(link.host, login, policy=QUICK, uploads=tmp_path) as client:
            deliver_blobs(Repository(client, target_path), blobs, "push", silent)
        return link.sent

    flawless = pushed(unique(), image.blobs)
    path, largest = unique(), image.blobs[0]
    assert isinstance(largest.source, MemoryBlob)
    ending = replace(largest, source=Ending(largest.source.content))
    with pytest.raises(RegistryError, match="ended"):
        pushed(path, [ending, *image.blobs[1:]])
    first = link.sent
    assert first > flawless // 4
    assert first + pushed(path, image.blobs) <= 1.05 * flawless
    with RegistryClient(link.host, login) as client:
        target = Repository(client, path)
        target.put_tagged("v1", image.manifest)
        assert image.is_whole(target)
    assert list(tmp_path.iterdir()) == []


class Ending(MemoryBlob):
    """Content whose reader is ended in the middle, as Ctrl-C does."""

    def open(self, offset: int) -> Iterator[bytes]:
        half = len(self.content) // 2
        yield self.content[offset:half]
        raise RegistryError("ended")


def test_of_blobs_that_wait_the_largest_goes_first(target: Repository) -> None:
    sizes = [100, 20_000, 300_000, 1_000, 900_000, 20_001]  # as layers come, while more are made
    sent: list[int] = []
    all_wait = threading.Event()

    @dataclass(frozen=True)
    class Source:
        content: bytes

        def open(self, offset: int) -> Iterator[bytes]:
            assert all_wait.wait(60)
            sent.append(len(self.content))
            yield self.content[offset:]

    contents = [random.Random(size).randbytes(size) for size in sizes]
    with BlobDelivery(target, "push", silent, jobs=1) as delivery:
        for content in contents:
            delivery.add(BlobTransfer(digest_of(content), len(content), Source(content)))
        all_wait.set()
        assert delivery.finish().sent == sum(sizes)
    # Which is the first depends on how many were there when it was taken.
    first, *others = sent
    assert others == sorted(set(sizes) - {first}, reverse=True)
    assert all(target.client.has_blob(target.path, digest_of(content)) for content in contents)


def test_a_manifest_is_put_again_while_another_push_writes_a_link_of_its_blobs(
    link: Link, login: CredentialsFor, own_registry: Project
) -> None:
    # Distribution 2.8 empties a link's file before it writes it anew, whenever somebody puts the
    # blob, and calls a manifest that it reads at that moment one with a wrong digest.
    image, path = Pushed.make(random.Random(9)), unique()
    layer = image.blobs[0].digest.removeprefix("sha256:")
    storage = own_registry.registry / "storage/docker/registry/v2/repositories"
    written = storage / path / "_layers/sha256" / layer / "link"
    refusals: list[int] = []

    class Policy(RetryPolicy):
        def delay(self, failures: int, *_: object, **__: object) -> float:
            refusals.append(failures)
            written.write_text(image.blobs[0].digest)
            return 0.0

    with RegistryClient(link.host, login, policy=Policy()) as client:
        target = Repository(client, path)
        deliver_blobs(target, image.blobs, "push", silent)
        written.write_text("")
        target.put_tagged("v1", image.manifest)
        assert refusals == [1]
        assert image.is_whole(target)


@pytest.mark.parametrize("which", ["layer", "config", "tag", "revision"])
def test_what_a_killed_registry_has_left_empty_is_put_anew_and_said(
    link: Link, login: CredentialsFor, own_registry: Project, which: str
) -> None:
    # Distribution 2.8 that is killed between emptying a link and writing it answers 500 for ever.
    image, path = Pushed.make(random.Random(11)), unique()
    folder = own_registry.registry / "storage/docker/registry/v2/repositories" / path
    blobs = {"layer": image.blobs[0], "config": image.blobs[-1]}
    links = {
        name: folder / "_layers/sha256" / blob.digest[7:] / "link" for name, blob in blobs.items()
    }
    links["tag"] = folder / "_manifests/tags/v1/current/link"
    links["revision"] = folder / "_manifests/revisions/sha256" / image.manifest.digest[7:] / "link"
    said: list[str] = []
    with RegistryClient(
        link.host, login, policy=QUICK, on_event=lambda e: said.append(e.text)
    ) as c:
        target = Repository(c, path)
        image.push(target)
        before = links[which].read_bytes()
        links[which].write_bytes(b"")
        link.clear()
        if which in blobs:
            image.push(target)
            assert link.sent < 2 * blobs[which].size + 20_000
            where = target.name(blobs[which].digest)
        else:
            assert c.find_digest(path, "v1") is None
            target.put_tagged("v1", image.manifest)
            where = target.name("v1")
        assert image.is_whole(target)
    assert links[which].read_bytes() == before
    (told,) = [text for text in said if "anew" in text]
    assert where in told
    assert "500" in told


def test_a_registry_that_answers_500_to_all_is_not_taken_for_an_empty_one(
    link: Link, login: CredentialsFor, own_registry: Project
) -> None:
    image, path = Pushed.make(random.Random(12)), unique()
    storage = own_registry.registry / "storage/docker"
    with RegistryClient(link.host, login, policy=replace(QUICK, attempts=2)) as client:
        image.push(Repository(client, path))
        storage.rename(storage.with_name("away"))
        storage.write_text("no folder")
        try:
            with pytest.raises(RegistryError):
                client.find_digest(path, "v1")
            with pytest.raises(RegistryError):
                image.push(Repository(client, path))
        finally:
            storage.unlink()
            storage.with_name("away").rename(storage)


def test_blobs_whose_bytes_are_all_there_are_closed_before_a_push_ends(
    link: Link, login: CredentialsFor
) -> None:
    image, path = Pushed.make(random.Random(13)), unique()
    with RegistryClient(link.host, login, policy=QUICK) as client:
        target = Repository(client, path)
        link.clear(rate=2e6)  # others are under way when one ends
        with pytest.raises(RegistryError, match="ended"):
            deliver_blobs(target, [*image.blobs[1:], ended_at_once(image.blobs[0])], "push", silent)
        first, there = link.sent, []
        for blob in image.blobs:
            there += [blob.size] if client.has_blob(path, blob.digest) else []
        assert there
        assert first <= 1.05 * sum(there) + 5000


def ended_at_once(blob: BlobTransfer) -> BlobTransfer:
    """One whose reader is ended before its first byte, when others are on their way."""

    class Ended(MemoryBlob):
        def open(self, offset: int) -> Iterator[bytes]:
            time.sleep(0.05)
            raise RegistryError("ended")
            yield self.content[offset:]

    assert isinstance(blob.source, MemoryBlob)
    return replace(blob, source=Ended(blob.source.content))


def test_a_digest_that_the_registry_makes_up_is_not_believed(door: Door) -> None:
    path = unique()
    prepare_repository(door.target, path)
    door.fault("PUT", "/manifests/v1", "misname", count=9)
    image = Pushed.make(random.Random(8))
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as client:
        with pytest.raises(ManifestError, match="stored as"):
            image.push(Repository(client, path))
        assert image.is_whole(Repository(client, path))  # it has the image, whatever it says
