"""A manifest that refers to another one, found from it in every registry.

OCI distribution specification, "Pushing Manifests with Subject" and "Referrers Tag Schema".
"""

from __future__ import annotations

import json
from typing import Any

from slipway.registry.distribution.blob_transfer import Repository
from slipway.registry.distribution.registry_client import find_manifest
from slipway.registry.manifests import OCI_INDEX, OCI_MANIFEST, Manifest, digest_of


def put_referrer(repository: Repository, manifest: Manifest) -> None:
    """Put a manifest that names a `subject`, its blobs being there, so that it is found from that.

    A registry without the referrers API gets an index under a tag that stands in for it; what is in
    that index already stays. Two pushes at once to such a registry may lose one of the two from the
    index: the second run mends it. Raises RegistryError's subclasses.
    """
    client, path = repository.client, repository.path
    content = manifest.json()
    subject = str(content["subject"]["digest"])
    client.put_manifest(path, manifest.digest, manifest)
    if manifest.digest in client.referrers(path, subject):
        return
    tag = subject.replace(":", "-")
    listed = find_manifest(client, path, tag)
    entries = listed.json()["manifests"] if listed else []
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [*entries, _entry(manifest, content)],
        },
        separators=(",", ":"),
    ).encode()
    client.put_manifest(path, tag, Manifest(OCI_INDEX, digest_of(raw), raw))


def _entry(manifest: Manifest, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "mediaType": OCI_MANIFEST,
        "digest": manifest.digest,
        "size": len(manifest.raw),
        "artifactType": content.get("artifactType") or content["config"]["mediaType"],
        "annotations": content.get("annotations", {}),
    }
