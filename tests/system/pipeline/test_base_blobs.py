"""The layers of a base as its registry has them, for a push of an image that stands on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from slipway.core import Event, anonymous
from slipway.matrix import Base, load_matrix
from slipway.pipeline.base_images import BaseBlobs
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.targets.shared_bases import shared_base_place
from slipway.registry import RegistryClient, Target, digest_of
from tests.support.registry.images import layer_tar, put_oci_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]

MATRIX = load_matrix(Path(__file__).parents[3] / "versions.yaml")


def base_at(host: str, path: str) -> Base:
    base = next(image.base for image in MATRIX.images if image.base.registry)
    assert base.registry
    registry = dataclasses.replace(base.registry, host=host, login=False)
    return dataclasses.replace(base, registry=registry, repository=path, tag="v1")


def context(events: list[Event], target: Target | None = None, /, **locks: Any) -> PipelineContext:
    facts = SimpleNamespace(
        matrix=MATRIX,
        target=target,
        locks=SimpleNamespace(bases=locks),
        region=None,
        credentials=anonymous,
        on_event=events.append,
    )
    return cast("PipelineContext", facts)


def test_layers_are_told_by_the_digests_of_their_tars(plain: RegistryClient) -> None:
    path = unique()
    manifest = put_oci_image(plain, path, "v1", seed="base")
    (part,) = manifest.json()["layers"]
    base = base_at(plain.host, path)
    lock = {base.name: SimpleNamespace(digest=manifest.digest)}
    for locks in ({}, lock):  # by its tag, and by the digest that is recorded
        with BaseBlobs(context([], None, **locks), base) as blobs:
            found = blobs.find()
        assert {diff_id: (blob.digest, blob.size) for diff_id, blob in found.items()} == {
            digest_of(layer_tar("base")): (part["digest"], part["size"])
        }


def test_a_registry_that_does_not_answer_costs_a_line(plain: RegistryClient) -> None:
    events: list[Event] = []
    with BaseBlobs(context(events), base_at(plain.host, unique())) as blobs:
        assert blobs.find() == {}
    assert [event.kind for event in events] == ["notice"]


def test_a_base_that_slipway_makes_is_in_no_registry_but_in_the_target_that_has_its_recipe(
    plain: RegistryClient,
) -> None:
    base = next(image.base for image in MATRIX.images if image.base.registry is None)
    recipe, path = digest_of(unique().encode()), unique()
    target = Target("there", "local", plain.host)
    matrix = dataclasses.replace(MATRIX, repository_prefix=path)
    repository, tag = shared_base_place(matrix, base, recipe)
    for known, there, found in (
        (recipe, None, 0),
        ("", target, 0),
        (recipe, target, 0),
        (recipe, target, 1),
    ):
        events: list[Event] = []
        if found:
            put_oci_image(plain, repository, tag, seed="own")
        facts = context(events, there)
        cast("Any", facts).matrix = matrix
        with BaseBlobs(facts, base, known) as blobs:
            assert len(blobs.find()) == found
        assert events == []
