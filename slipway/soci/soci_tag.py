"""An image of a repository gets its second tag: the same image with a SOCI index.

A zTOC depends on its layer alone. So the repository keeps, beside the zTOC's blob, a note of each
layer that was indexed: a manifest under the tag ``ztoc-DIGEST`` of the layer. Who comes later, from
any machine, asks for the note and reads no layer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import Event, OnEvent, file_pieces, silent, write_atomic
from slipway.registry import (
    OCI_MANIFEST,
    BlobTransfer,
    FileBlob,
    ImmutableTagError,
    Manifest,
    ManifestError,
    MemoryBlob,
    RegistryError,
    Repository,
    deliver_blobs,
    digest_of,
    find_manifest,
)
from slipway.soci.gzip_spans import SPAN
from slipway.soci.soci_documents import (
    EMPTY_CONFIG,
    LayerIndex,
    empty_config,
    read_layer_indexes,
    soci_digest,
    soci_documents,
)
from slipway.soci.tar_contents import UnindexableLayerError
from slipway.soci.ztoc import described_size, make_ztoc

SUFFIX = "-soci"
LEAST_LAYER = 10 << 20
"""Compressed bytes: smaller layers get no zTOC and are fetched whole, as soci has it."""

NOTE_TYPE = "application/vnd.slipway.ztoc.v1+json"
_MOST_BYTES = 256 << 20  # of a zTOC: for 32 GiB of files in one layer
_ASKED_AT_ONCE = 8
_MADE_AT_ONCE = 2  # each holds its checkpoints in memory: 8 MiB for a GiB of files


@dataclass(frozen=True)
class PublishedIndex:
    """The tag of an image that its makers have indexed: of a base, where AWS publishes one."""

    repository: Repository
    tag: str


@dataclass(frozen=True)
class ZtocSources:
    """Where zTOCs come from that the repository does not have.

    `cache`: those that were made or fetched here, by layer. `files`: layers that are at hand, by
    digest; others are read from the repository. `least`: the smallest layer that gets one.
    """

    cache: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    published: PublishedIndex | None = None
    least: int = LEAST_LAYER


@dataclass(frozen=True)
class SociResult:
    """What is under the second tag. `made` layers were read for it, `sent` bytes uploaded.

    `already`: the tag was there, and nothing was asked of layers.
    """

    uri: str
    digest: str
    indexed: int  # layers with a zTOC
    made: int
    sent: int
    already: bool
    seconds: float


def put_soci_tag(
    repository: Repository, tag: str, sources: ZtocSources, on_event: OnEvent = silent
) -> SociResult | None:
    """Put the image under `tag` with a SOCI index under `tag`-soci. None: all layers are small.

    Raises ManifestError where the second tag is another image's, RegistryError's subclasses.
    """
    started = time.monotonic()
    goal = f"{tag}{SUFFIX}"
    task = f"index {repository.name(goal)}"
    on_event(Event("start", task))
    try:
        result = _Indexing(repository, tag, sources, task, on_event).result(started)
    except BaseException as error:
        on_event(Event("failed", task, text=str(error)))
        raise
    text = f"{result.indexed} layers, {result.made} read" if result else "all layers are small"
    on_event(Event("done", task, text=text))
    return result


@dataclass(frozen=True)
class _Layer:
    """A layer that is to have a zTOC."""

    digest: str
    size: int

    @property
    def note(self) -> str:
        return f"ztoc-{self.digest.removeprefix('sha256:')}"


class _Indexing:
    """One image on its way to its second tag."""

    def __init__(
        self,
        repository: Repository,
        tag: str,
        sources: ZtocSources,
        task: str,
        on_event: OnEvent,
    ) -> None:
        self.repository, self.goal, self.sources = repository, f"{tag}{SUFFIX}", sources
        self.task, self.on_event = task, on_event
        self.client, self.path = repository.client, repository.path
        self.image = self.client.image(self.path, tag)
        self.made = self.sent = 0

    def result(self, started: float) -> SociResult | None:
        """Have the tag there."""
        listed = [
            _Layer(str(part["digest"]), int(part["size"]))
            for part in self.image.json()["layers"]
            if part["size"] >= self.sources.least and part["mediaType"].endswith("gzip")
        ]
        layers = list(dict.fromkeys(listed))
        if not layers:
            return None
        digest = self._standing()
        indexed = len(layers)
        already = digest is not None
        if digest is None:
            indexes = self._indexes(layers)
            indexed = len(indexes)
            if not indexes:
                return None
            digest = self._put(indexes)
        return SociResult(
            uri=self.repository.name(self.goal),
            digest=digest,
            indexed=indexed,
            made=self.made,
            sent=self.sent,
            already=already,
            seconds=time.monotonic() - started,
        )

    def _standing(self) -> str | None:
        """Digest of what is under the second tag. Raises ManifestError for another image."""
        index = find_manifest(self.client, self.path, self.goal)
        if index is None:
            return None
        ours = _parts(self.image)
        if index.is_index and soci_digest(index):
            for entry in index.json()["manifests"]:
                manifest = self.client.manifest(self.path, entry["digest"])
                if not manifest.is_index and _parts(manifest) == ours:
                    return index.digest
        raise ManifestError(
            "another image is under this tag",
            where=self.repository.name(self.goal),
            cure="Somebody put it there by other means: remove it and run this again.",
        )

    def _indexes(self, layers: list[_Layer]) -> list[LayerIndex]:
        """The zTOCs of the layers, lowest first, each in the repository with its note."""
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            notes = dict(zip(layers, pool.map(self._note, layers), strict=True))
        missing = [layer for layer, note in notes.items() if note is None]
        if missing:
            published = self._published()
            with ThreadPoolExecutor(_MADE_AT_ONCE) as pool:
                paths = pool.map(lambda layer: self._ztoc(layer, published), missing)
                fresh = dict(zip(missing, paths, strict=True))
            new = {layer: _index_of(layer, path) for layer, path in fresh.items()}
            blobs = [
                BlobTransfer(index.digest, index.size, FileBlob(path))
                for index, path in zip(new.values(), fresh.values(), strict=True)
                if index and path
            ]
            blobs.append(BlobTransfer(digest_of(EMPTY_CONFIG), 2, MemoryBlob(EMPTY_CONFIG)))
            self.sent += deliver_blobs(self.repository, blobs, self.task, self.on_event).sent
            with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
                stand = pool.map(self._put_note, new.keys(), new.values())
                notes |= dict(zip(new, stand, strict=True))
        return [index for note in notes.values() for index in note or ()]

    def _note(self, layer: _Layer) -> list[LayerIndex] | None:
        """What the repository says of a layer: one zTOC, or that there can be none."""
        note = find_manifest(self.client, self.path, layer.note)
        if note is None:
            return None
        where = self.repository.name(layer.note)
        listed = read_layer_indexes(note, where)
        if len(listed) > 1 or any(index.layer != layer.digest for index in listed):
            raise ManifestError("this is no note of that layer", where=where)
        return listed

    def _put_note(self, layer: _Layer, index: LayerIndex | None) -> list[LayerIndex]:
        """Have the note there; gives what it says, which another indexer may have put."""
        parts = [index.descriptor()] if index else [empty_config(NOTE_TYPE)]
        content = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": NOTE_TYPE,
            "config": empty_config(NOTE_TYPE),
            "layers": parts,
        }
        raw = json.dumps(content, separators=(",", ":")).encode()
        try:
            self._put_manifest(layer.note, Manifest(OCI_MANIFEST, digest_of(raw), raw))
        except ImmutableTagError:
            stands = self._note(layer)
            if stands is None:
                raise
            return stands
        return [index] if index else []

    def _published(self) -> dict[str, LayerIndex]:
        """The zTOCs that the base's makers have published, by layer."""
        source = self.sources.published
        if source is None:
            return {}
        repository = source.repository
        try:
            index = find_manifest(repository.client, repository.path, source.tag)
            digest = soci_digest(index) if index and index.is_index else None
            if digest is None:
                return {}
            soci = repository.client.manifest(repository.path, digest)
            listed = read_layer_indexes(soci, repository.name(source.tag))
        except RegistryError as error:
            text = f"{error.what} ({error.where}): the base's layers are read in place of its index"
            self.on_event(Event("notice", self.task, text=text))
            return {}
        return {index.layer: index for index in listed}

    def _ztoc(self, layer: _Layer, published: Mapping[str, LayerIndex]) -> Path | None:
        """A layer's zTOC as a file: made before, published, or made now. None: there is none."""
        path = self.sources.cache / layer.digest.removeprefix("sha256:")
        if path.is_file() and described_size(path.read_bytes(), str(path)) == layer.size:
            return path
        index = published.get(layer.digest)
        if index and self.sources.published and index.span == SPAN and index.size < _MOST_BYTES:
            repository = self.sources.published.repository
            raw = b"".join(repository.client.blob_stream(repository.path, index.digest, index.size))
            where = repository.name(index.digest)
            if described_size(raw, where) != layer.size:
                raise ManifestError("this zTOC is of another layer", where=where)
        else:
            self.on_event(Event("progress", self.task, step=f"reading {layer.digest[7:19]}"))
            try:
                raw = make_ztoc(self._pieces(layer)).encode()
            except UnindexableLayerError as error:
                self.on_event(Event("notice", self.task, text=f"{layer.digest}: {error.what}"))
                return None
            self.made += 1
        write_atomic(path, raw)
        return path

    def _pieces(self, layer: _Layer) -> Iterator[bytes]:
        path = self.sources.files.get(layer.digest)
        if path is None:
            yield from self.client.blob_stream(self.path, layer.digest, layer.size)
            return
        yield from file_pieces(path)

    def _put(self, indexes: Iterable[LayerIndex]) -> str:
        """The documents, the tag's own last; gives its digest."""
        config = self.client.config(self.path, self.image)
        names = ("architecture", "os", "variant")
        platform = {name: str(config[name]) for name in names if config.get(name)}
        documents = soci_documents(self.image, platform, list(indexes))
        for manifest in (documents.soci, documents.image):
            self._put_manifest(manifest.digest, manifest)
        try:
            self.repository.put_tagged(self.goal, documents.index)
        except ImmutableTagError:  # another one was faster
            stands = self._standing()
            if stands is None:
                raise
            return stands
        self.sent += len(documents.index.raw)
        return documents.index.digest

    def _put_manifest(self, reference: str, manifest: Manifest) -> None:
        self.client.put_manifest(self.path, reference, manifest)
        self.sent += len(manifest.raw)


def _parts(image: Manifest) -> list[Any]:
    """Digests of configuration and layers: what an image is, whatever its manifest's format."""
    content = image.json()
    return [part["digest"] for part in [content["config"], *content["layers"]]]


def _index_of(layer: _Layer, path: Path | None) -> LayerIndex | None:
    if path is None:
        return None
    raw = path.read_bytes()
    return LayerIndex(layer.digest, digest_of(raw), len(raw), SPAN)
