"""An image of the engine as blobs and a manifest, for our own client to send.

dockerd compresses each layer anew for each push, on one core, sends a layer again from its start
after a cut, and gives up on one 429. Here a layer is compressed once, on all cores, and kept by the
digest of its tar; layers that the base's registry has in compressed form come from there. An
engine with containerd's store has compressed layers itself, and those are sent as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from slipway.core import (
    Event,
    OnEvent,
    commit,
    human_bytes,
    partial_file,
    remove_leftovers,
    wait_for_lock,
    write_atomic,
)
from slipway.engine import (
    ContentImage,
    Engine,
    LayerTar,
    find_content_image,
    find_layer_tars,
)
from slipway.registry.distribution import (
    BlobTransfer,
    FileBlob,
    MemoryBlob,
    RegistryBlob,
    Repository,
)
from slipway.registry.errors import ManifestError
from slipway.registry.layer_gzip import PackedTar, write_gzip
from slipway.registry.manifests import (
    SCHEMA2,
    Manifest,
    check_manifest,
    digest_of,
    is_digest,
    schema2_manifest,
    to_schema2,
)

_FORMAT = "2"
_LEVEL = 4  # as small as what dockerd sends; 6 saves 4 % for twice the time


@dataclass(frozen=True)
class PackedImage:
    """What a push puts: the blobs, then the manifest."""

    manifest: Manifest
    blobs: tuple[BlobTransfer, ...]


def packed_layers(folder: Path) -> dict[str, Path]:
    """The compressed layers that a packer keeps below a folder, by digest."""
    names = [path.name for path in folder.glob("*")]
    return {f"sha256:{name}": folder / name for name in names if is_digest(f"sha256:{name}")}


@dataclass(frozen=True)
class ImagePacker:
    """Makes packed images. `folder` keeps compressed layers and what is known of them.

    `base_blobs` tells the layers of the base as its registry has them, `own` those that were made
    here without the engine; both by the digests of their tars.
    """

    folder: Path
    base_blobs: Callable[[], Mapping[str, RegistryBlob]]
    own: Mapping[str, BlobTransfer] = field(default_factory=dict)

    def pack(
        self, engine: Engine, image_id: str, target: Repository, task: str, on_event: OnEvent
    ) -> PackedImage | None:
        """The image for a repository; None where the engine's disk cannot be read from here.

        Raises EngineError where a layer is not what the engine says.
        """
        if content := find_content_image(engine, image_id):
            return self._stored(content, target)
        stored = find_layer_tars(engine, image_id)
        if stored is None:
            return None
        base = self.base_blobs()
        blobs: dict[str, BlobTransfer] = {}
        layers = []
        for layer in stored.layers:
            blob = base.get(layer.diff_id)
            known = blob.to(target) if blob else self.own.get(layer.diff_id)
            transfer = known or self._packed(layer, task, on_event)
            layers.append((transfer.digest, transfer.size))
            blobs[transfer.digest] = transfer
        config = digest_of(stored.config)
        blobs[config] = BlobTransfer(config, len(stored.config), MemoryBlob(stored.config))
        manifest = schema2_manifest((config, len(stored.config)), layers)
        return PackedImage(manifest, tuple(blobs.values()))

    def _stored(self, image: ContentImage, target: Repository) -> PackedImage | None:
        """An image whose layers are compressed already: as it is, under a manifest of schema 2.

        None where a blob is missing, or is of another compression than such a manifest has: what
        the engine makes of it is for the engine to say.
        """
        found = Manifest(image.media_type or SCHEMA2, digest_of(image.manifest), image.manifest)
        try:
            check_manifest(found, str(image.folder))
            manifest = to_schema2(found)
        except ManifestError:
            return None
        base = {blob.digest: blob for blob in self.base_blobs().values()}
        content = manifest.json()
        blobs: dict[str, BlobTransfer] = {}
        for part in (content["config"], *content["layers"]):
            digest, path = part["digest"], image.blob(part["digest"])
            if digest in base:
                blobs[digest] = base[digest].to(target)
            elif path.is_file() and path.stat().st_size == part["size"]:
                blobs[digest] = BlobTransfer(digest, part["size"], FileBlob(path))
            else:
                return None
        return PackedImage(manifest, tuple(blobs.values()))

    def _packed(self, layer: LayerTar, task: str, on_event: OnEvent) -> BlobTransfer:
        note = self.folder / f"{_FORMAT}-{layer.diff_id.removeprefix('sha256:')}.json"
        with wait_for_lock(self.folder / "lock"):  # one at a time: each works on all cores
            packed = self._noted(note) or self._pack(layer, note, task, on_event)
        return BlobTransfer(packed.digest, packed.size, FileBlob(self._blob(packed)))

    def _blob(self, packed: PackedTar) -> Path:
        return self.folder / packed.digest.removeprefix("sha256:")

    def _noted(self, note: Path) -> PackedTar | None:
        try:
            packed = PackedTar(**json.loads(note.read_text()))
            return packed if self._blob(packed).stat().st_size == packed.size else None
        except (OSError, ValueError, TypeError):
            return None

    def _pack(self, layer: LayerTar, note: Path, task: str, on_event: OnEvent) -> PackedTar:
        on_event(Event("progress", task, step=f"compressing {layer.diff_id[7:19]}"))
        target = note.with_suffix(".gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        with partial_file(target) as partial:
            packed = write_gzip(layer.pieces(), partial, _LEVEL)
            commit(partial, self._blob(packed))
        write_atomic(note, json.dumps(asdict(packed)))
        on_event(Event("progress", task, step=f"compressed to {human_bytes(packed.size)}"))
        return packed
