"""An image as the engine has it, and whether a manifest in a registry is that image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway.engine.client import Engine
from slipway.engine.images import inspect
from slipway.registry.errors import ManifestError
from slipway.registry.manifests import SCHEMA2, Manifest


@dataclass(frozen=True)
class LocalImage:
    """What tells an image of the engine.

    `id` is the digest of the configuration on graph drivers, and that of the manifest or index in
    the containerd store. `layers` are the digests of the uncompressed layers ("diff_ids").
    `schema2`: the engine is known to send a Docker schema 2 manifest.
    """

    id: str
    os: str
    architecture: str
    layers: tuple[str, ...]
    containerd: bool
    schema2: bool

    @classmethod
    def of(cls, engine: Engine, reference: str) -> LocalImage:
        """Describe an image. Raises EngineError where the engine does not have it."""
        found: Mapping[str, Any] = inspect(engine, reference)
        descriptor = found.get("Descriptor") or {}
        return cls(
            id=str(found["Id"]),
            os=str(found["Os"]),
            architecture=str(found["Architecture"]),
            layers=tuple(found["RootFS"].get("Layers") or ()),
            containerd=engine.containerd_store,
            # Graph drivers keep no manifests and always write schema 2 ones. The containerd store
            # sends what the build wrote, and engines before 28 do not say what that is.
            schema2=not engine.containerd_store or descriptor.get("mediaType") == SCHEMA2,
        )

    def is_behind(self, manifest: Manifest) -> bool:
        """Whether a schema 2 manifest is this image for certain: by what the id is made of."""
        if manifest.media_type != SCHEMA2:
            return False
        if self.containerd:
            return manifest.digest == self.id
        return bool(manifest.json()["config"]["digest"] == self.id)

    def check_layers(self, config: Mapping[str, Any], where: str) -> None:
        """For manifests that the id does not tell (rewritten ones): the same layers.

        Raises ManifestError for those of another image, and on graph drivers, whose ids do tell.
        """
        found = tuple(config["rootfs"]["diff_ids"])
        if not self.containerd or found != self.layers:
            raise ManifestError(
                f"the registry has an image with layers {', '.join(found)}, not {self.id}",
                where=where,
            )
