"""Images outside of any engine: in a registry, or in an OCI layout on disk.

No engine and no engine's disk takes part: the layers stream from where they are into the layer
cache. opencontainers/image-spec: manifest.md, config.md, image-layout.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from slipway.registry import RegistryClient
from slipway.sqsh.sources.blobs import StoredImage, _architecture, _origin


def registry_image(registry: RegistryClient, repository: str, reference: str) -> StoredImage:
    """An image of a registry, for this machine's architecture where there are several."""
    manifest = registry.image(repository, reference, architecture=_architecture())
    content = manifest.json()
    config = registry.blob(repository, content["config"]["digest"])
    name = f"{registry.host}/{repository}@{manifest.digest}"

    def open_blob(digest: str) -> Iterator[bytes]:
        return registry.blob_stream(repository, digest)

    # enroot's own spelling: docker://HOST#REPOSITORY:TAG.
    provenance = f"docker://{registry.host}#{repository}@{manifest.digest}"
    return StoredImage(_origin(name, provenance, manifest, config, open_blob), manifest.digest)
