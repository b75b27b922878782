from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from slipway.engine import Engine
from slipway.verify.expectations import CheckedImage


def layers(engine: Engine, image: str) -> list[str]:
    found: list[str] = engine.client.images.get(image).attrs["RootFS"]["Layers"]
    return found


def test_the_container_is_of_the_image_that_was_asked_for(
    engine: Engine, container: str, subject: CheckedImage
) -> None:
    assert engine.client.containers.get(container).attrs["Image"] == subject.image_id
    assert engine.client.images.get(subject.reference).id == subject.image_id


def test_the_image_is_made_on_exactly_its_base(engine: Engine, subject: CheckedImage) -> None:
    base, image = layers(engine, subject.base_id), layers(engine, subject.image_id)
    assert image[: len(base)] == base
    assert len(image) > len(base)


def test_the_matrix_label_is_the_matrix_cell(
    image_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    assert json.loads(image_config["Labels"]["io.slipway.matrix"]) == subject.cell


def test_the_labels_are_those_of_the_matrix(
    image_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    labels = image_config["Labels"]
    assert {name: labels.get(name) for name in subject.labels} == subject.labels
    wanted = ("title", "version", "licenses", "base.name")
    assert {f"org.opencontainers.image.{name}" for name in wanted} <= labels.keys()


def test_the_labels_of_the_base_are_kept(
    image_config: Mapping[str, Any], base_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    theirs = base_config.get("Labels") or {}
    own = {*subject.labels, "io.slipway.build-id"}  # which a base has that is an image of ours
    kept = {name: value for name, value in theirs.items() if name not in own}
    assert {name: image_config["Labels"].get(name) for name in kept} == kept


def test_the_build_id_is_a_label_and_ends_the_tag(
    image_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    build_id = image_config["Labels"]["io.slipway.build-id"]
    assert re.fullmatch("[0-9a-f]{64}", build_id)
    assert subject.reference.endswith(build_id[:12])


def test_what_the_image_adds_to_its_base_is_within_its_budget(
    engine: Engine, subject: CheckedImage
) -> None:
    def unpacked(image: str) -> int:
        return sum(layer["Size"] for layer in engine.client.images.get(image).history())

    added = unpacked(subject.image_id) - unpacked(subject.base_id)
    assert added <= subject.size_budget, (
        f"{added / 1e6:.0f} MB added, {subject.size_budget / 1e6:.0f} MB allowed"
        " (size_budget_mb in versions.yaml)"
    )
