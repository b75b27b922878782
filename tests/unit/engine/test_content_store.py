"""Images off containerd's content store, as it keeps them; the bench has a real engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.engine import find_content_image
from slipway.registry import digest_of
from tests.support.overlay_images import content_engine, overlay_layer, put_content_image

TARS = [overlay_layer(b"one"), overlay_layer(b"two")]


def test_an_image_is_found_through_its_index_by_its_layers(tmp_path: Path) -> None:
    put_content_image(tmp_path, [overlay_layer(b"other")])
    image_id, manifest = put_content_image(tmp_path, TARS)
    found = find_content_image(content_engine(tmp_path, TARS), image_id)
    assert found
    assert digest_of(found.manifest) == manifest
    assert found.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert digest_of(found.config) in found.manifest.decode()
    # By the manifest itself, as a pulled image is known.
    assert find_content_image(content_engine(tmp_path, TARS), manifest) == found


@pytest.mark.parametrize(
    "more",
    [{"url": "tcp://there:2376"}, {"data_root": ""}, {"data_root": "/nowhere"}],
    ids=["another machine", "no folder", "a disk that is not here"],
)
def test_a_store_that_cannot_be_read_gives_none(tmp_path: Path, more: dict[str, Any]) -> None:
    image_id, _ = put_content_image(tmp_path, TARS)
    assert find_content_image(content_engine(tmp_path, TARS, **more), image_id) is None


def test_an_image_of_other_layers_or_with_damaged_documents_is_none(tmp_path: Path) -> None:
    image_id, manifest = put_content_image(tmp_path, TARS)
    assert find_content_image(content_engine(tmp_path, TARS[:1]), image_id) is None
    (path,) = tmp_path.rglob(manifest[7:])
    path.write_bytes(path.read_bytes()[:-1])
    assert find_content_image(content_engine(tmp_path, TARS), image_id) is None
    assert find_content_image(content_engine(tmp_path, TARS), "sha256:../../etc/passwd") is None
