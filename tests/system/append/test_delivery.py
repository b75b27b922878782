"""An image that is sent while its layers are made, into a real registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.append import AppendedDelivery, AppendedImage, AppendRequest, append_image
from slipway.core import Event, SharedParts, SlipwayError, anonymous
from slipway.inventory import LayeredImage, open_layered_image
from slipway.registry import RegistryClient, RegistryError, Repository, digest_of
from tests.support.one_build import BASE, MATRIX, OneBuild, make_build, put_base
from tests.support.registry.images import QUICK, unique
from tests.support.registry.link import Link, linked
from tests.support.registry.open_registry import open_registry

TAG = "built"


@dataclasses.dataclass
class Rig:
    """A base in a registry, an image to make on it, and a link to where that goes."""

    base: LayeredImage
    build: OneBuild
    target: Repository
    link: Link
    folder: Path

    def request(self, **more: object) -> AppendRequest:
        return AppendRequest(
            dockerfile=self.build.request.dockerfile,
            context=self.build.request.context,
            labels=self.build.request.labels,
            python=MATRIX.images[0].base.facts.python,
            cache=self.folder,
            packages={},
            **more,  # type: ignore[arg-type]
        )

    def is_whole(self, image: AppendedImage) -> bool:
        """Read by somebody who pulls."""
        client, path = self.target.client, self.target.path
        assert client.manifest(path, TAG) == image.manifest
        content = image.manifest.json()
        for part in [content["config"], *content["layers"]]:
            read = b"".join(client.blob_stream(path, part["digest"], part["size"]))
            assert digest_of(read) == part["digest"]
        return True


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with (
        open_registry(tmp_path / "source") as source,
        open_registry(tmp_path / "registry") as host,
        linked(host) as link,
        RegistryClient(source, anonymous) as there,
        RegistryClient(link.host, anonymous, policy=QUICK) as client,
    ):
        build = make_build(source, put_base(there), tmp_path / "wheels")
        with open_layered_image(f"{source}/{BASE}@{build.digest}", anonymous) as base:
            yield Rig(base, build, Repository(client, unique()), link, tmp_path / "cache")


def test_layers_are_sent_while_others_are_made_and_each_blob_once(rig: Rig) -> None:
    events: list[Event] = []
    with AppendedDelivery(rig.target, TAG, events.append, base=rig.base) as delivery:
        image = append_image(rig.base, rig.request(on_layer=delivery.add), "build")
        result = delivery.finish(image)
    assert rig.is_whole(image)
    sizes = {part["digest"]: part["size"] for part in image.manifest.json()["layers"]}
    assert result.sent == sum(sizes.values()) + len(image.config)
    kinds = [event.kind for event in events if event.kind != "progress"]
    assert kinds == ["start", "done"]
    rig.link.clear()
    with AppendedDelivery(rig.target, TAG, base=rig.base) as again:
        second = again.finish(image)
    assert (second.sent, second.already) == (0, True)
    assert rig.link.sent < 2000


def test_all_layers_are_there_before_the_image_is_finished(rig: Rig) -> None:
    with AppendedDelivery(rig.target, TAG, base=rig.base) as delivery:
        image = append_image(rig.base, rig.request(on_layer=delivery.add), "build")
        delivery._blobs.finish()
        for part in image.manifest.json()["layers"]:
            assert rig.target.client.has_blob(rig.target.path, part["digest"])
        assert rig.target.client.head(rig.target.path, TAG) is None


def test_a_registry_that_is_gone_meanwhile_fails_the_push_and_not_the_build(rig: Rig) -> None:
    rig.link.upstream = ("127.0.0.1", 9)  # nobody answers there
    events: list[Event] = []
    with AppendedDelivery(rig.target, TAG, events.append, base=rig.base) as delivery:
        image = append_image(rig.base, rig.request(on_layer=delivery.add), "build")
        assert len(image.layers) > 1
        with pytest.raises(RegistryError):
            delivery.finish(image)
    assert [event.kind for event in events if event.kind != "progress"] == ["start", "failed"]


def test_the_target_is_prepared_once_before_the_first_byte_and_for_nothing_not_at_all(
    rig: Rig,
) -> None:
    sent: list[int] = []

    def prepare() -> None:
        sent.append(rig.link.sent)

    rig.link.clear()
    with AppendedDelivery(rig.target, TAG, base=rig.base, prepare=prepare):
        pass  # a build that fails before its first layer
    assert sent == []
    with AppendedDelivery(rig.target, TAG, base=rig.base, prepare=prepare) as delivery:
        image = append_image(rig.base, rig.request(on_layer=delivery.add), "build")
        delivery.finish(image)
    assert sent == [0]
    assert rig.is_whole(image)


def test_a_target_that_cannot_be_prepared_gets_nothing(rig: Rig) -> None:
    def refuse() -> None:
        raise RegistryError("no right to make it")

    rig.link.clear()
    with AppendedDelivery(rig.target, TAG, base=rig.base, prepare=refuse) as delivery:
        image = append_image(rig.base, rig.request(), "build")
        for _ in range(2):
            with pytest.raises(RegistryError, match="no right"):
                delivery.add(image.layers[0])
    assert rig.link.sent == 0


def test_a_build_that_fails_ends_what_is_on_its_way_and_leaves_no_tag(rig: Rig) -> None:
    events: list[Event] = []

    def fail() -> None:
        with AppendedDelivery(rig.target, TAG, events.append, base=rig.base) as delivery:
            append_image(rig.base, rig.request(on_layer=delivery.add), "build")
            raise SlipwayError("the build ended")

    with pytest.raises(SlipwayError, match="the build ended"):
        fail()
    assert [event.kind for event in events if event.kind != "progress"] == ["start", "failed"]
    assert rig.target.client.head(rig.target.path, TAG) is None


def test_machines_that_share_their_parts_send_nothing_before_they_have_asked(rig: Rig) -> None:
    shared = SharedParts(rig.folder / "shared")
    with AppendedDelivery(rig.target, TAG, shared=shared, base=rig.base) as delivery:
        image = append_image(rig.base, rig.request(on_layer=delivery.add), "build")
        assert rig.link.sent == 0
        delivery.finish(image)
    assert rig.is_whole(image)
