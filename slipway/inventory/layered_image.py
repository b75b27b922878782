"""An image where it lies, in a registry or an OCI layout, known by its manifest and configuration.

Layers are streamed by who asks for them, and nothing is unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from slipway.core import CredentialsFor, UsageError, file_pieces, write_atomic
from slipway.registry import (
    Manifest,
    ManifestError,
    RegistryClient,
    Repository,
    check_manifest,
    choose_manifest,
    digest_of,
    media_type_of,
    parse_config,
)

_REFERENCE = re.compile(
    r"(?:registry://)?(?P<host>[^/]+)/(?P<repository>[^@]+?)"
    r"(?::(?P<tag>[^:@/]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LAYOUT = "oci:"
_DOCUMENT_MAX = 4 << 20
_TITLE_MAX = 80
_INDEX = "application/vnd.oci.image.index.v1+json"


class BlobReader(Protocol):
    """Where the blobs of an image are. A digest has been checked when its stream has ended."""

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        """A blob in pieces. Raises ManifestError."""


@dataclass(frozen=True)
class LayeredImage:
    """An image by its documents. `repository` is None for one in a folder."""

    where: str
    manifest: Manifest
    config: Mapping[str, Any]
    blobs: BlobReader
    repository: Repository | None = None

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The descriptors of its layers, lowest first."""
        return list(self.manifest.json()["layers"])

    @property
    def layer_titles(self) -> dict[str, str]:
        """What made each layer, by digest, as the image's history tells it; none where it does not.

        Layers that are made without an engine have what is in them as a comment.
        """
        history = self.config.get("history") or []
        steps = [step for step in history if isinstance(step, dict) and not step.get("empty_layer")]
        layers = self.layers
        if len(steps) != len(layers):
            return {}
        titles = {}
        for layer, step in zip(layers, steps, strict=True):
            comment = str(step.get("comment") or "")
            text = comment if ":" in comment else str(step.get("created_by") or "")
            titles[str(layer["digest"])] = _short(text)
        return titles


@dataclass(frozen=True)
class _RegistryBlobs:
    repository: Repository

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        return self.repository.client.blob_stream(self.repository.path, digest, size)


@dataclass(frozen=True)
class _LayoutBlobs:
    folder: Path

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        del size
        path = self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if not path.is_file():
            raise ManifestError(f"the layout does not have {digest}", where=str(self.folder))
        hasher = hashlib.sha256()
        for piece in file_pieces(path):
            hasher.update(piece)
            yield piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise ManifestError(f"{digest} does not have its digest", where=str(self.folder))

    def document(self, digest: str) -> bytes:
        raw = bytearray()
        for piece in self.stream(digest, 0):
            raw += piece
            if len(raw) > _DOCUMENT_MAX:
                raise ManifestError(f"{digest} is too large", where=str(self.folder))
        return bytes(raw)


def stored_layered_image(
    where: str, manifest: Manifest, config: bytes, blobs: BlobReader
) -> LayeredImage:
    """An image of a store of blobs that is no registry. Raises ManifestError."""
    check_manifest(manifest, where)
    return LayeredImage(
        where, manifest, _checked(parse_config(config, manifest, where), where), blobs
    )


@contextlib.contextmanager
def open_layered_image(
    uri: str, credentials: CredentialsFor, architecture: str = "amd64", kept: Path | None = None
) -> Iterator[LayeredImage]:
    """The image at `HOST/REPOSITORY:TAG`, `HOST/REPOSITORY@DIGEST` or `oci:FOLDER`, for the block.

    Documents of an image that is named by its digest are kept below `kept`, and asked for once.
    Raises UsageError for another kind of reference, RegistryError.
    """
    if uri.startswith(_LAYOUT):
        yield _layout_base(Path(uri.removeprefix(_LAYOUT)), architecture)
        return
    match = _REFERENCE.fullmatch(uri)
    if match is None or not (match["digest"] or match["tag"]):
        raise UsageError(
            f"{uri!r} is not an image that can be read",
            cure="Name it as registry://HOST/REPOSITORY:TAG, with @sha256:DIGEST, or oci:FOLDER.",
        )
    note = kept / f"{match['digest'][7:]}-{architecture}.json" if kept and match["digest"] else None
    with RegistryClient(match["host"], credentials) as client:
        repository = Repository(client, match["repository"])
        known = _kept_documents(note) if note else None
        if known is None:
            manifest = client.image(
                repository.path, match["digest"] or match["tag"], architecture=architecture
            )
            config = client.config(repository.path, manifest)
            if note:
                document = {"type": manifest.media_type, "config": config}
                write_atomic(note, json.dumps({**document, "manifest": manifest.raw.decode()}))
        else:
            manifest, config = known
        yield LayeredImage(
            where=repository.name(manifest.digest),
            manifest=manifest,
            config=_checked(config, repository.name()),
            blobs=_RegistryBlobs(repository),
            repository=repository,
        )


def _kept_documents(note: Path) -> tuple[Manifest, dict[str, Any]] | None:
    """Manifest and configuration as they were read before; None where they are not whole here."""
    try:
        document = json.loads(note.read_text())
        raw = document["manifest"].encode()
        manifest = Manifest(document["type"], digest_of(raw), raw)
        check_manifest(manifest, str(note))
        config = parse_config(json.dumps(document["config"]).encode(), manifest, str(note))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ManifestError):
        return None
    return manifest, config


def _short(command: str) -> str:
    """A command of a history without what engines put around it, in one line."""
    text = re.sub(r"^/bin/sh -c (#\(nop\) *)?|^RUN | # buildkit$", "", " ".join(command.split()))
    return text if len(text) <= _TITLE_MAX else f"{text[: _TITLE_MAX - 3]}..."


def _layout_base(folder: Path, architecture: str) -> LayeredImage:
    path = folder / "index.json"
    if not path.is_file() or path.stat().st_size > _DOCUMENT_MAX:
        raise UsageError(
            "this is not an OCI layout", where=str(folder), cure="Name a folder with an index.json."
        )
    blobs, where = _LayoutBlobs(folder), str(folder)
    raw = path.read_bytes()
    manifest = Manifest(_INDEX, digest_of(raw), raw)
    for _ in range(3):  # the folder's own index, one of platforms, the image
        check_manifest(manifest, where)
        if not manifest.is_index:
            break
        entries = manifest.json()["manifests"]
        digest = str(entries[0]["digest"]) if len(entries) == 1 else ""
        digest = digest or choose_manifest(manifest, architecture=architecture)
        (kind,) = {str(e.get("mediaType", "")) for e in entries if e["digest"] == digest}
        raw = blobs.document(digest)
        manifest = Manifest(media_type_of(raw, kind), digest, raw)
    check_manifest(manifest, where)
    if manifest.is_index:
        raise ManifestError("an index inside of an index", where=where)
    config = parse_config(blobs.document(manifest.json()["config"]["digest"]), manifest, where)
    return LayeredImage(f"oci:{folder}@{manifest.digest}", manifest, _checked(config, where), blobs)


def _checked(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Refuse a configuration whose parts that are read later are of another type."""
    run = config.get("config") or {}
    usable = (
        isinstance(config.get("history") or [], list)
        and isinstance(config.get("created") or "", str)
        and isinstance(run.get("Labels") or {}, dict)
        and isinstance(run.get("Env") or [], list)
        and all(isinstance(entry, str) for entry in run.get("Env") or [])
    )
    if not usable:
        raise ManifestError("the image's configuration is not one", where=where)
    return config
