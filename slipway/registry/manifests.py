"""Manifests: which one of an index, how large, and the rewrite from OCI to Docker schema 2."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from slipway.registry.errors import ManifestError

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA2_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPTED = (SCHEMA2, SCHEMA2_LIST, OCI_MANIFEST, OCI_INDEX)
INDEXES = (SCHEMA2_LIST, OCI_INDEX)

_SCHEMA2_CONFIG = "application/vnd.docker.container.image.v1+json"
_SCHEMA2_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIGS = (_SCHEMA2_CONFIG, "application/vnd.oci.image.config.v1+json")
# Media types of "OCI Image Layer Filesystem Changeset" and of Docker's "Image Manifest V 2,
# Schema 2", whose only layer in our registries is a gzip one.
_GZIP_LAYERS = (_SCHEMA2_LAYER, "application/vnd.oci.image.layer.v1.tar+gzip")


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry keeps it: `digest` is the SHA-256 of exactly `raw`."""

    media_type: str
    digest: str
    raw: bytes

    def json(self) -> dict[str, Any]:
        """The manifest's content."""
        return cast("dict[str, Any]", json.loads(self.raw))

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests of several platforms, and is no image itself."""
        return self.media_type in INDEXES

    @property
    def size(self) -> int:
        """Compressed bytes of configuration and layers. For images only."""
        content = self.json()
        return sum(int(part["size"]) for part in [content["config"], *content["layers"]])


def digest_of(raw: bytes) -> str:
    """`sha256:...` of the bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def media_type_of(raw: bytes, header: str) -> str:
    """What a manifest is: its own word where it says it, else the answer's Content-Type.

    Raises ManifestError where the two disagree (CVE-2021-41190: one digest, two meanings) and for
    types that are no image.
    """
    said = header.partition(";")[0].strip()
    try:
        own = json.loads(raw).get("mediaType")
    except (ValueError, AttributeError) as error:
        raise ManifestError("the registry answered with something that is no manifest") from error
    if own and said in ACCEPTED and own != said:
        raise ManifestError(f"a manifest of type {own} was served as {said}")
    found = own or said
    if found not in ACCEPTED:
        raise ManifestError(
            f"a manifest of type {found!r} is not a container image",
            cure="Schema 1 images must be pushed again by a current engine.",
        )
    return str(found)


def choose_manifest(index: Manifest, *, os: str = "linux", architecture: str = "amd64") -> str:
    """Digest of an index's image for a platform. Raises ManifestError naming those it has."""
    entries = index.json()["manifests"]
    platforms = [entry.get("platform") or {} for entry in entries]
    for entry, platform in zip(entries, platforms, strict=True):
        if platform.get("os") == os and platform.get("architecture") == architecture:
            return str(entry["digest"])
    there = sorted({f"{p.get('os')}/{p.get('architecture')}" for p in platforms} - {"None/None"})
    raise ManifestError(f"the index has no image for {os}/{architecture}, only {', '.join(there)}")


def to_schema2(manifest: Manifest) -> Manifest:
    """The same image under a Docker schema 2 manifest; blobs, and so their digests, stay.

    SageMaker refuses OCI manifests (aws/amazon-sagemaker-feedback#180, moby/buildkit#5480). The
    two formats share configuration and layers and differ in media types alone. The result is
    the same for the same input, so that a second rewrite finds the first. Raises ManifestError
    for what schema 2 cannot say: layers that are not gzip, artifacts that are no image.
    """
    if manifest.media_type == SCHEMA2:
        return manifest
    content = manifest.json()
    if manifest.media_type != OCI_MANIFEST or content["config"]["mediaType"] not in _CONFIGS:
        raise ManifestError(f"{manifest.digest} ({manifest.media_type}) is not an image")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": SCHEMA2,
            "config": _descriptor(content["config"], _SCHEMA2_CONFIG),
            "layers": [_layer(layer) for layer in content["layers"]],
        },
        separators=(",", ":"),
    ).encode()
    return Manifest(SCHEMA2, digest_of(raw), raw)


def _layer(layer: dict[str, Any]) -> dict[str, Any]:
    if layer["mediaType"] not in _GZIP_LAYERS:
        raise ManifestError(
            f"layer {layer['digest']} is {layer['mediaType']}; a Docker schema 2 manifest, which "
            "SageMaker needs, has gzip layers only",
            cure="Build with gzip layers (no `compression=zstd`).",
        )
    return _descriptor(layer, _SCHEMA2_LAYER)


def _descriptor(old: dict[str, Any], media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": old["size"], "digest": old["digest"]}
