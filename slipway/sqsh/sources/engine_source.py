"""An image of an engine, its layers read from where that is cheapest.

Folders of overlay2, or of containerd's overlayfs snapshots, where this process can read them; else
blobs of containerd's content store; else what `docker save` sends, asked for when the first layer
is needed that the cache does not have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import docker.errors
import requests

from slipway.core import SlipwayError
from slipway.engine import (
    Engine,
    EngineError,
    containerd_roots,
    content_folder,
    find_image_id,
    find_layer_tars,
    inspect_image,
    sdk_errors,
)
from slipway.sqsh.image_documents import ImageConfig, ImageManifest, JsonFields
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources.blob_store import ImageFinder, StoredManifest, stored_image
from slipway.sqsh.sources.containerd_store import snapshot_folders
from slipway.sqsh.sources.oci_layout import BlobFolder
from slipway.squashfs import ArchiveHeaders, DirectorySource, Source, TarSource

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def open_engine_image(
    engine: Engine, reference: str, spool: Path, *, in_place: bool = True
) -> Iterator[SourceImage]:
    """The image of a name or id; its layers can be read in the block.

    What `docker save` sends is kept in a nameless file on `spool`'s file system. `in_place` False
    reads nothing of the engine's disk. Raises EngineError where the engine has no such image.
    """
    with contextlib.ExitStack() as resources:
        image = _inspected(engine, reference)
        saved = SavedImage(engine, image, spool, resources)
        diff_ids = tuple(layer.digest for layer in image.layers)
        image = replace(image, layers=tuple(saved.layers(diff_ids)))
        if in_place and engine.url.startswith("unix:"):
            local = (
                containerd_image(containerd_roots(engine.data_root), image)
                if engine.containerd_store
                else _overlay_image(engine, image)
            )
            image = local or image
        yield image


def _inspected(engine: Engine, reference: str) -> SourceImage:
    """What the engine says of an image; of its layers the digests."""
    if find_image_id(engine, reference) is None:
        raise EngineError(f"the engine has no image {reference}", cure="Build it: `./inv build`.")
    fields = JsonFields(inspect_image(engine, reference), f"dockerd://{reference}")
    image_id = fields.digest("Id")
    return SourceImage(
        reference=reference,
        id=image_id,
        digests=fields.texts("RepoDigests"),
        digest=image_id,
        size=fields.size("Size"),
        architecture=fields.text("Architecture"),
        created=fields.time("Created"),
        config=ImageConfig.from_fields(fields.object("Config")),
        layers=tuple(
            TarSource(digest, lambda: iter(()))
            for digest in fields.object("RootFS").digests("Layers")
        ),
    )


def find_overlay_layers(engine: Engine, reference: str) -> list[Path] | None:
    """The overlay2 folders of an image, lowest first; None where this process cannot read them."""
    if engine.containerd_store or not engine.url.startswith("unix:"):
        return None
    driver = JsonFields(inspect_image(engine, reference), reference).object("GraphDriver")
    if driver.text("Name") != "overlay2":
        return None
    # The upper directory is the topmost layer; the lower ones are listed from the top down
    # (moby/moby:daemon/graphdriver/overlay2/overlay.go, GetMetadata).
    data = driver.object("Data")
    listed = [data.text("UpperDir"), *data.text("LowerDir").split(":")]
    folders = [Path(folder) for folder in reversed(listed) if folder]
    return folders if all(map(_readable, folders)) else None


def _readable(folder: Path) -> bool:
    try:
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        return False


def _overlay_image(engine: Engine, image: SourceImage) -> SourceImage | None:
    folders = find_overlay_layers(engine, image.id)
    if folders is None or len(folders) != len(image.layers):
        return None
    stored = find_layer_tars(engine, image.id)
    kept = (
        {tar.diff_id: ArchiveHeaders(tar.names, tar.headers) for tar in stored.layers}
        if stored
        else {}
    )
    return replace(image, layers=_in_folders(image.layers, folders, kept))


def _in_folders(
    layers: tuple[Source, ...], folders: list[Path], kept: Mapping[str, ArchiveHeaders]
) -> tuple[Source, ...]:
    """Layers as folders; an archive stands by for what these alone do not tell."""
    return tuple(
        DirectorySource(
            layer.digest,
            folder,
            layer if isinstance(layer, TarSource) else None,
            kept.get(layer.digest),
        )
        for layer, folder in zip(layers, folders, strict=True)
    )


def containerd_image(roots: list[Path], image: SourceImage) -> SourceImage | None:
    """The image as containerd has it below one of its roots; None where that cannot be read."""
    diff_ids = tuple(layer.digest for layer in image.layers)
    for root in roots:
        stored = _content_image(root, image, diff_ids)
        source = stored or image
        folders = snapshot_folders(root, diff_ids)
        if folders is not None and all(map(_readable, folders)):
            return replace(source, layers=_in_folders(source.layers, folders, {}))
        if stored is not None:
            return stored
    return None


def _content_image(root: Path, image: SourceImage, diff_ids: tuple[str, ...]) -> SourceImage | None:
    """The image from its blobs: the engine's id is the digest of its index or manifest."""
    store = BlobFolder(content_folder(root))
    if not os.access(store.folder / "blobs", os.R_OK | os.X_OK) or not store.has_blob(image.id):
        return None
    finder = ImageFinder(store)
    document = finder.document(image.id)
    candidates = (
        [StoredManifest(image.id, document)]
        if isinstance(document, ImageManifest)
        else list(finder.images(document.entries).values())
    )
    for candidate in candidates:
        description = finder.description(candidate)
        if description.diff_ids == diff_ids:
            blobs = stored_image(store, candidate, description, image.reference)
            there = all(store.has_blob(layer.digest) for layer in candidate.manifest.layers)
            layers = blobs.layers if there else image.layers
            return replace(image, id=blobs.id, digest=candidate.digest, layers=layers)
    return None


@dataclass
class SavedImage:
    """What `docker save` sends of an image, asked for once and kept until the resources close."""

    engine: Engine
    image: SourceImage
    spool: Path
    resources: contextlib.ExitStack
    _layers: dict[str, TarSource] | None = None

    def layers(self, diff_ids: tuple[str, ...]) -> Iterator[TarSource]:
        """A source for each layer. None of them asks the engine before it is opened."""
        for diff_id in diff_ids:
            yield TarSource(diff_id, _SavedLayer(self, diff_id).pieces)

    def layer(self, diff_id: str) -> TarSource:
        """A layer of the saved archive."""
        if self._layers is None:
            # Here, since few layers are read this way: most exports find their file, or folders.
            from slipway.sqsh.sources.image_archive import ArchiveBlobs, archive_image, spooled

            wanted = tuple(layer.digest for layer in self.image.layers)
            file = self.resources.enter_context(spooled(self._save(), self.spool))
            blobs = ArchiveBlobs(file, f"what the engine saved of {self.image.reference}")
            image = archive_image(blobs, diff_ids=wanted)
            self._layers = {
                layer.digest: layer for layer in image.layers if isinstance(layer, TarSource)
            }
        return self._layers[diff_id]

    def _save(self) -> Iterator[bytes]:
        """The stream of `docker save`."""
        with sdk_errors(self.engine, f"saving {self.image.reference}"):
            api = self.engine.client.api
            url = f"{api.base_url}/v{api.api_version}/images/{self.image.id}/get"
            # Not api.get_image(): its response cannot be closed early.
            with contextlib.closing(api.get(url, stream=True, timeout=(60, None))) as response:
                try:
                    response.raise_for_status()
                except requests.HTTPError as error:
                    docker.errors.create_api_error_from_http_exception(error)
                yield from response.iter_content(_CHUNK_BYTES)


@dataclass(frozen=True)
class _SavedLayer:
    saved: SavedImage
    diff_id: str

    def pieces(self) -> Iterator[bytes]:
        """The layer's blob."""
        try:
            source = self.saved.layer(self.diff_id)
        except KeyError as error:
            raise SlipwayError(
                f"the engine saved {self.saved.image.reference} without {self.diff_id}"
            ) from error
        yield from source.open()
