"""A manifest that refers to another one, found from it in every registry; and artefacts, which are
such manifests with files.

OCI distribution specification 1.1, "Pushing Manifests with Subject", "Listing Referrers" and
"Referrers Tag Schema".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.core import EntryFaults, silent
from slipway.registry.distribution.blob_transfer import (
    BlobTransfer,
    MemoryBlob,
    Repository,
    deliver_blobs,
)
from slipway.registry.distribution.registry_client import (
    SMALL_BLOB,
    find_manifest,
    referrer_digests,
)
from slipway.registry.errors import ENTRY_FAULTS, ManifestError
from slipway.registry.manifests import (
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    digest_of,
    referrers_tag,
)

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_TITLE = "org.opencontainers.image.title"
_INDEX_TRIES = 3


def put_referrer(repository: Repository, manifest: Manifest) -> None:
    """Put a manifest that names a `subject`, its blobs being there, so that it is found from that.

    A registry without the referrers API gets an index under a tag that stands in for it; what is in
    that index already stays. Raises ImmutableTagError where the registry neither finds referrers
    nor lets their index be written, RegistryError's other subclasses.
    """
    _put_referrers(repository, [manifest])


def _put_referrers(repository: Repository, manifests: Sequence[Manifest]) -> None:
    """Manifests of one subject. The index is written anew where another writer was in between."""
    client, path = repository.client, repository.path
    subject = str(manifests[0].json()["subject"]["digest"])
    for manifest in manifests:
        client.put_manifest(path, manifest.digest, manifest)
    if client.find_referrers(path, subject) is not None:
        return  # whether it lists them already or a moment later
    wanted = {manifest.digest: manifest for manifest in manifests}
    tag = referrers_tag(subject)
    for tries in range(_INDEX_TRIES + 1):
        index = find_manifest(client, path, tag)
        listed = index.json() if index else {"manifests": []}
        if not (missing := wanted.keys() - referrer_digests(listed, repository.name(tag))):
            return
        if tries == _INDEX_TRIES:
            break
        entries = listed["manifests"] + [_entry(wanted[digest]) for digest in sorted(missing)]
        content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        raw = json.dumps(content, separators=(",", ":")).encode()
        client.put_manifest(path, tag, Manifest(OCI_INDEX, digest_of(raw), raw))
    raise ManifestError(
        "others write to the list of what refers to this image all the time",
        where=repository.name(tag),
        cure="Run this again.",
    )


def _entry(manifest: Manifest) -> dict[str, Any]:
    content = manifest.json()
    return {
        "mediaType": OCI_MANIFEST,
        "digest": manifest.digest,
        "size": len(manifest.raw),
        "artifactType": content.get("artifactType") or content["config"]["mediaType"],
        "annotations": content.get("annotations", {}),
    }


@dataclass(frozen=True)
class ArtefactFile:
    """One file of an artefact that is to be put beside an image."""

    title: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class Artefact:
    """What is to be put beside an image: a type, and its files."""

    kind: str  # "application/spdx+json"
    files: tuple[ArtefactFile, ...]


@dataclass(frozen=True)
class StoredFile:
    """One file of an artefact in a registry, which has not been read."""

    title: str
    digest: str
    size: int


@dataclass(frozen=True)
class StoredArtefact:
    """An artefact beside an image. `files` are those of its layers that have a title."""

    kind: str
    digest: str
    files: tuple[StoredFile, ...]
    size: int  # bytes of all layers


def put_artefacts(
    repository: Repository, subject: Manifest, artefacts: Sequence[Artefact]
) -> list[str]:
    """Put artefacts beside an image; digests of their manifests. What is there stays.

    Raises ManifestError for a file that is too large to be read back, and what `put_referrer` does.
    """
    client, path = repository.client, repository.path
    manifests = [_manifest(repository, subject, artefact) for artefact in artefacts]
    known = client.referrers(path, subject.digest)
    if not (new := [manifest for manifest in manifests if manifest.digest not in known]):
        return [manifest.digest for manifest in manifests]
    contents = {_EMPTY, *(file.content for artefact in artefacts for file in artefact.files)}
    blobs = (BlobTransfer(digest_of(each), len(each), MemoryBlob(each)) for each in contents)
    deliver_blobs(repository, blobs, f"push {repository.name(subject.digest)}", silent)
    _put_referrers(repository, new)
    return [manifest.digest for manifest in manifests]


def list_artefacts(
    repository: Repository, digest: str, faults: EntryFaults
) -> list[StoredArtefact]:
    """The artefacts of an image, sorted; their files are not read. Raises RegistryError.

    One whose manifest cannot be read is left out, its fault kept.
    """
    client, path = repository.client, repository.path
    artefacts = []
    for referrer in client.referrers(path, digest):
        with faults.skip(*ENTRY_FAULTS):
            manifest = find_manifest(client, path, referrer)
            if manifest is not None and not manifest.is_index:
                artefacts.append(_stored_artefact(manifest))
    return sorted(artefacts, key=lambda artefact: (artefact.kind, artefact.digest))


def _stored_artefact(manifest: Manifest) -> StoredArtefact:
    content = manifest.json()
    parts = content["layers"]
    files = [
        StoredFile(title, part["digest"], part["size"]) for part in parts if (title := _title(part))
    ]
    kind = content.get("artifactType") or content["config"].get("mediaType")
    size = sum(part["size"] for part in parts)
    return StoredArtefact(str(kind), manifest.digest, tuple(files), size)


def read_artefact_file(repository: Repository, file: StoredFile) -> bytes:
    """The content of a file, its digest checked. Raises ManifestError for a large one."""
    return repository.client.blob(repository.path, file.digest, file.size)


def _title(part: Mapping[str, Any]) -> str:
    annotations = part.get("annotations")
    title = annotations.get(_TITLE) if isinstance(annotations, dict) else None
    return title if isinstance(title, str) else ""


def _manifest(repository: Repository, subject: Manifest, artefact: Artefact) -> Manifest:
    for file in artefact.files:
        if len(file.content) > SMALL_BLOB:
            raise ManifestError(f"{file.title} is too large", where=repository.name())
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artefact.kind,
        "config": {"mediaType": _EMPTY_TYPE, "digest": digest_of(_EMPTY), "size": len(_EMPTY)},
        "layers": [
            {
                "mediaType": file.media_type,
                "digest": digest_of(file.content),
                "size": len(file.content),
                "annotations": {_TITLE: file.title},
            }
            for file in artefact.files
        ],
        "subject": {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": len(subject.raw),
        },
    }
    raw = json.dumps(content, sort_keys=True).encode()
    return Manifest(OCI_MANIFEST, digest_of(raw), raw)
