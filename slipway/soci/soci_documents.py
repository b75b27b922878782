"""The documents of an image with a SOCI index: an OCI index of both, bound to each other.

The second form of AWS's index ("SOCI Index Manifest v2"), the one that its reader takes by default
since 0.10: awslabs/soci-snapshotter:docs/soci-index-manifest-v2.md, soci/soci_index.go and
soci/soci_convert.go. The image's manifest names the SOCI index by an annotation, and the OCI index
names the image's manifest beside the SOCI index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.registry import OCI_INDEX, OCI_MANIFEST, Manifest, ManifestError, digest_of, is_digest
from slipway.soci.ztoc import BUILD_TOOL

SOCI_TYPE = "application/vnd.amazon.soci.index.v2+json"
ZTOC_TYPE = "application/octet-stream"
EMPTY_CONFIG = b"{}"
_LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
_LAYER_TYPE = "com.amazon.soci.image-layer-mediaType"
_SPAN_SIZE = "com.amazon.soci.span-size"
_BUILD_TOOL = "com.amazon.soci.build-tool-identifier"
_INDEX_DIGEST = "com.amazon.soci.index-digest"
_IMAGE_DIGEST = "com.amazon.soci.image-manifest-digest"

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class LayerIndex:
    """The zTOC of one layer, as a blob of a repository."""

    layer: str  # digest
    digest: str
    size: int
    span: int

    def descriptor(self) -> dict[str, Any]:
        """As a SOCI index lists it."""
        return {
            "mediaType": ZTOC_TYPE,
            "digest": self.digest,
            "size": self.size,
            "annotations": {
                _LAYER_DIGEST: self.layer,
                _LAYER_TYPE: GZIP_LAYER,
                _SPAN_SIZE: str(self.span),
            },
        }


@dataclass(frozen=True)
class SociDocuments:
    """All that an image with a SOCI index adds to its blobs; `index` is what the tag names."""

    soci: Manifest
    image: Manifest
    index: Manifest


def soci_documents(
    image: Manifest, platform: Mapping[str, str], layers: Sequence[LayerIndex]
) -> SociDocuments:
    """The documents of an image (Docker schema 2 or OCI) on a platform (`os`, `architecture`)."""
    soci = _manifest(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": empty_config(SOCI_TYPE),
            "layers": [layer.descriptor() for layer in layers],
            "annotations": {_BUILD_TOOL: BUILD_TOOL},
        }
    )
    content = image.json()
    bound = _manifest(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _part(content["config"], _CONFIG),
            "layers": [_part(layer, GZIP_LAYER) for layer in content["layers"]],
            "annotations": {_INDEX_DIGEST: soci.digest},
        }
    )
    entries = [
        {**_entry(bound, platform), "annotations": {_INDEX_DIGEST: soci.digest}},
        {
            **_entry(soci, platform),
            "artifactType": SOCI_TYPE,
            "annotations": {_IMAGE_DIGEST: bound.digest},
        },
    ]
    index = _manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return SociDocuments(soci, bound, index)


def empty_config(media_type: str) -> dict[str, Any]:
    """The configuration of a manifest that is no image."""
    digest = digest_of(EMPTY_CONFIG)
    return {"mediaType": media_type, "digest": digest, "size": len(EMPTY_CONFIG)}


def soci_digest(index: Manifest) -> str | None:
    """Digest of the SOCI index that an OCI index has, None where it has none."""
    for entry in index.json()["manifests"]:
        if entry.get("artifactType") == SOCI_TYPE:
            return str(entry["digest"])
    return None


def read_layer_indexes(soci: Manifest, where: str) -> list[LayerIndex]:
    """What a SOCI index, or a note of one zTOC, lists. Raises ManifestError where it is none."""
    listed = []
    for part in soci.json()["layers"]:
        notes = part.get("annotations") or {}
        if part.get("mediaType") != ZTOC_TYPE or _LAYER_DIGEST not in notes:
            continue
        span = str(notes.get(_SPAN_SIZE, ""))
        usable = is_digest(notes[_LAYER_DIGEST]) and span.isascii() and span.isdigit()
        if not usable or len(span) > 12:
            raise ManifestError(f"{part['digest']} is listed as no zTOC can be", where=where)
        listed.append(LayerIndex(notes[_LAYER_DIGEST], part["digest"], part["size"], int(span)))
    return listed


def _entry(manifest: Manifest, platform: Mapping[str, str]) -> dict[str, Any]:
    return {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.raw),
        "platform": dict(platform),
    }


def _part(old: Mapping[str, Any], media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": old["digest"], "size": old["size"]}


def _manifest(content: Mapping[str, Any]) -> Manifest:
    raw = json.dumps(content, separators=(",", ":")).encode()
    return Manifest(str(content["mediaType"]), digest_of(raw), raw)
