"""Manifests: which one of an index, how large, and the rewrite from OCI to Docker schema 2."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
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


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LAYERS = 20_000  # of an image 127, of a .sqsh its pieces; a manifest has 4 MiB
_MOST_BYTES = 1 << 50


def is_digest(text: object) -> bool:
    """Whether it is a digest as we take them: part of a URL's path and of file names."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def parse_json(raw: bytes, what: str, where: str = "") -> dict[str, Any]:
    """A JSON object that came from outside. Raises ManifestError where it is none."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{what} is not JSON", where=where or None) from error
    if not isinstance(content, dict):
        raise ManifestError(f"{what} is not a JSON object", where=where or None)
    return content


def check_manifest(manifest: Manifest, where: str) -> None:
    """Refuse a manifest whose parts are not descriptors; later readers need not look again.

    A digest becomes part of URLs and paths, a size the measure of what is read: both come from
    whoever answers under the registry's name. Raises ManifestError.
    """
    content = parse_json(manifest.raw, "the manifest", where)
    names = ("manifests",) if manifest.is_index else ("layers",)
    parts = [] if manifest.is_index else [content.get("config")]
    for name in names:
        listed = content.get(name)
        if not isinstance(listed, list) or len(listed) > _MOST_LAYERS:
            raise ManifestError(f"the manifest has no usable list of {name}", where=where)
        parts += listed
    for part in parts:
        if not isinstance(part, dict) or not is_digest(part.get("digest")):
            raise ManifestError("a part of the manifest has no sha256 digest", where=where)
        size = part.get("size")
        if type(size) is not int or not 0 <= size < _MOST_BYTES:
            raise ManifestError(f"{part['digest']} has no usable size", where=where)
        if not isinstance(part.get("mediaType", ""), str):
            raise ManifestError(f"{part['digest']} has no usable media type", where=where)
        if not isinstance(part.get("platform") or {}, dict):
            raise ManifestError(f"{part['digest']} has no usable platform", where=where)


def parse_config(raw: bytes, manifest: Manifest, where: str) -> dict[str, Any]:
    """The image configuration of a manifest, with one diff_id for each layer."""
    config = parse_json(raw, "the image's configuration", where)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(map(is_digest, diff_ids)):
        raise ManifestError("the image's configuration does not name its layers", where=where)
    if len(diff_ids) != len(manifest.json()["layers"]):
        raise ManifestError("manifest and configuration differ in their layers", where=where)
    if not isinstance(config.get("config") or {}, dict):
        raise ManifestError("the image's configuration is not one", where=where)
    return config


def digest_of(raw: bytes) -> str:
    """`sha256:...` of the bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def referrers_tag(digest: str) -> str:
    """The tag of the index of what refers to a manifest, in registries that do not find it
    (OCI distribution specification, "Referrers Tag Schema")."""
    return digest.replace(":", "-")


def media_type_of(raw: bytes, header: str) -> str:
    """What a manifest is: its own word where it says it, else the answer's Content-Type.

    Raises ManifestError where the two disagree (CVE-2021-41190: one digest, two meanings) and for
    types that are no image.
    """
    served = header.partition(";")[0].strip()
    try:
        own = json.loads(raw).get("mediaType")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ManifestError("the registry answered with something that is no manifest") from error
    if own and served in ACCEPTED and own != served:
        raise ManifestError(f"a manifest of type {own} was served as {served}")
    media_type = own or served
    if media_type not in ACCEPTED:
        raise ManifestError(
            f"a manifest of type {media_type!r} is not a container image",
            cure="Schema 1 images must be pushed again by a current engine.",
        )
    return str(media_type)


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
    layers = [_gzip_part(layer) for layer in content["layers"]]
    return schema2_manifest(_part(content["config"]), layers)


def schema2_manifest(config: tuple[str, int], layers: Sequence[tuple[str, int]]) -> Manifest:
    """The Docker schema 2 manifest of blobs that are told by digest and size; layers are gzip."""
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": SCHEMA2,
            "config": _descriptor(config, _SCHEMA2_CONFIG),
            "layers": [_descriptor(layer, _SCHEMA2_LAYER) for layer in layers],
        },
        separators=(",", ":"),
    ).encode()
    return Manifest(SCHEMA2, digest_of(raw), raw)


def _part(descriptor: dict[str, Any]) -> tuple[str, int]:
    return str(descriptor["digest"]), int(descriptor["size"])


def _gzip_part(layer: dict[str, Any]) -> tuple[str, int]:
    if layer["mediaType"] not in _GZIP_LAYERS:
        raise ManifestError(
            f"layer {layer['digest']} is {layer['mediaType']}; a Docker schema 2 manifest, which "
            "SageMaker needs, has gzip layers only",
            cure="Build with gzip layers (no `compression=zstd`).",
        )
    return _part(layer)


def _descriptor(part: tuple[str, int], media_type: str) -> dict[str, Any]:
    digest, size = part
    return {"mediaType": media_type, "size": size, "digest": digest}
