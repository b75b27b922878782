"""An image whose lowest layers the engine has: only what is new is given to it.

`docker load` takes an archive that lacks layers. An engine with graph drivers asks its layer store
by chain id before it opens a layer's file (moby/moby:image/tarexport/load.go); one with
containerd's store imports what is there and unpacks from the first snapshot that is missing
(moby/moby:daemon/containerd/image_exporter.go, containerd's WithSkipMissing).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.engine.buildkit import ContextFile, context_tar
from slipway.engine.client import Engine
from slipway.engine.errors import EngineError
from slipway.engine.images import inspect_image
from slipway.engine.transfer import DOCKER_HUB, load_image_tar, registry_host

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class ImageArchive:
    """An image as `docker load` takes it. Digests are `sha256:...`.

    `layers` are the files of those layers that the engine may lack, by the digest of the file.
    `manifest`: its media type, digest and bytes; only containerd's store needs it.
    """

    reference: str
    config: tuple[str, bytes]
    layer_digests: tuple[str, ...]  # all of them, lowest first
    layers: Mapping[str, Path]
    manifest: tuple[str, str, bytes] | None = None

    def files(self) -> list[ContextFile]:
        """What stands in the archive: the format of `docker save`, and an OCI layout."""
        digest, content = self.config
        files = [ContextFile(_path(digest), content)]
        files += [ContextFile(_path(layer), path) for layer, path in self.layers.items()]
        described = {
            "Config": _path(digest),
            "RepoTags": [self.reference],
            "Layers": [_path(layer) for layer in self.layer_digests],
        }
        files.append(ContextFile("manifest.json", json.dumps([described]).encode()))
        if self.manifest:
            media_type, digest, raw = self.manifest
            names = {"io.containerd.image.name": _whole_name(self.reference)}
            entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
            index = {
                "schemaVersion": 2,
                "mediaType": _OCI_INDEX,
                "manifests": [{**entry, "annotations": names}],
            }
            layout = {"imageLayoutVersion": "1.0.0"}
            files += [
                ContextFile(_path(digest), raw),
                ContextFile("index.json", json.dumps(index).encode()),
                ContextFile("oci-layout", json.dumps(layout).encode()),
            ]
        return files


def load_on_base(engine: Engine, base: str, archive: ImageArchive) -> str:
    """Have the engine have an image on top of `base`, which it has; gives the image's id.

    Raises EngineError where `base` is not what the image stands on, or the engine makes another
    image of it.
    """
    wanted = list(json.loads(archive.config[1])["rootfs"]["diff_ids"])
    below = _layers(engine, base)
    # None: containerd's store has dropped blobs of it, or never fetched what was unpacked already.
    if not below or below != wanted[: len(below)]:
        raise EngineError(f"the engine's {base} does not have the layers of its registry")
    load_image_tar(engine, context_tar(archive.files()))
    loaded = str(inspect_image(engine, archive.reference)["Id"])
    known = {archive.config[0], archive.manifest[1] if archive.manifest else ""}
    if loaded not in known or _layers(engine, loaded) != wanted:
        raise EngineError(f"the engine has {loaded} as {archive.reference}, which is not ours")
    return loaded


def _layers(engine: Engine, reference: str) -> list[str]:
    """Digests of the tars of an image that the engine has whole."""
    return list((inspect_image(engine, reference).get("RootFS") or {}).get("Layers") or ())


def _whole_name(reference: str) -> str:
    """As containerd knows it: with the registry and the folder that a short name leaves out."""
    if registry_host(reference) != DOCKER_HUB or reference.startswith(f"{DOCKER_HUB}/"):
        return reference
    return f"{DOCKER_HUB}/{reference if '/' in reference else f'library/{reference}'}"


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
