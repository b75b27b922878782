from __future__ import annotations

import json
from typing import Any

import pytest

from slipway.registry import Manifest, choose_manifest, digest_of, media_type_of
from slipway.registry.errors import ManifestError
from slipway.registry.manifests import OCI_INDEX, OCI_MANIFEST, SCHEMA2, to_schema2

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def manifest(media_type: str, content: dict[str, Any]) -> Manifest:
    raw = json.dumps(content).encode()
    return Manifest(media_type, digest_of(raw), raw)


def oci(*layer_types: str, config_type: str = OCI_CONFIG) -> Manifest:
    return manifest(
        OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": config_type, "size": 7, "digest": "sha256:c"},
            "layers": [
                {
                    "mediaType": kind,
                    "size": 10 + number,
                    "digest": f"sha256:{number}",
                    "annotations": {"a": "b"},
                }
                for number, kind in enumerate(layer_types)
            ],
            "annotations": {"org.opencontainers.image.created": "now"},
        },
    )


def test_an_oci_manifest_becomes_schema_2_with_the_same_blobs_in_the_same_order() -> None:
    docker_layer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    new = to_schema2(oci(OCI_LAYER, docker_layer))
    assert new.media_type == SCHEMA2
    assert new.digest == digest_of(new.raw)
    assert new.json() == {
        "schemaVersion": 2,
        "mediaType": SCHEMA2,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": 7,
            "digest": "sha256:c",
        },
        "layers": [
            {"mediaType": docker_layer, "size": 10, "digest": "sha256:0"},
            {"mediaType": docker_layer, "size": 11, "digest": "sha256:1"},
        ],
    }


def test_a_rewrite_is_the_same_each_time_and_leaves_schema_2_alone() -> None:
    once = to_schema2(oci(OCI_LAYER))
    assert to_schema2(oci(OCI_LAYER)) == once
    assert to_schema2(once) is once


@pytest.mark.parametrize(
    "layer",
    [
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
)
def test_layers_that_schema_2_does_not_have_are_refused_by_name(layer: str) -> None:
    with pytest.raises(ManifestError, match="gzip layers only") as failed:
        to_schema2(oci(OCI_LAYER, layer))
    assert layer in str(failed.value)
    assert "sha256:1" in str(failed.value)


def test_an_artifact_is_not_taken_for_an_image() -> None:
    with pytest.raises(ManifestError, match="not an image"):
        to_schema2(oci(OCI_LAYER, config_type="application/vnd.cncf.helm.config.v1+json"))


def test_size_counts_configuration_and_layers() -> None:
    assert oci(OCI_LAYER, OCI_LAYER).size == 7 + 10 + 11


def test_an_index_gives_the_image_of_the_platform_and_no_attestation() -> None:
    index = manifest(
        OCI_INDEX,
        {
            "mediaType": OCI_INDEX,
            "manifests": [
                {"digest": "sha256:no", "platform": {"os": "unknown", "architecture": "unknown"}},
                {"digest": "sha256:bare"},
                {"digest": "sha256:yes", "platform": {"os": "linux", "architecture": "amd64"}},
            ],
        },
    )
    assert index.is_index
    assert choose_manifest(index) == "sha256:yes"
    with pytest.raises(ManifestError, match="no image for linux/arm64, only linux/amd64"):
        choose_manifest(index, architecture="arm64")


@pytest.mark.parametrize(
    ("own", "header", "expected"),
    [
        (SCHEMA2, SCHEMA2, SCHEMA2),
        (None, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (OCI_MANIFEST, "application/octet-stream", OCI_MANIFEST),
    ],
)
def test_a_manifest_says_what_it_is(own: str | None, header: str, expected: str) -> None:
    raw = json.dumps({"mediaType": own} if own else {}).encode()
    assert media_type_of(raw, header) == expected


@pytest.mark.parametrize(
    ("raw", "header", "text"),
    [
        (b'{"mediaType": "%s"}' % OCI_INDEX.encode(), OCI_MANIFEST, "was served as"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "not a container"),
        (b"<html>", SCHEMA2, "no manifest"),
        (b"[]", SCHEMA2, "no manifest"),
    ],
)
def test_a_manifest_that_is_two_things_or_none_is_refused(
    raw: bytes, header: str, text: str
) -> None:
    with pytest.raises(ManifestError, match=text):
        media_type_of(raw, header)
