"""An image in a registry: no engine and no engine's disk takes part.

Layers stream from the registry into the layer cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from slipway.registry import RegistryClient
from slipway.sqsh.image_documents import ImageIndex, parse_manifest
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources.blob_store import ImageFinder, StoredManifest, stored_image


class RegistryBlobs:
    """One repository's blobs."""

    def __init__(self, registry: RegistryClient, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self.where = f"{registry.host}/{repository}"

    def has_blob(self, digest: str) -> bool:
        """A registry has what its indexes name."""
        del digest
        return True

    def blob_stream(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces, resumed after a cut."""
        return self._registry.blob_stream(self._repository, digest)

    def manifest_stream(self, digest: str) -> Iterator[bytes]:
        """A manifest, which the client has bounded and checked."""
        yield self._registry.manifest(self._repository, digest).raw


def registry_image(registry: RegistryClient, repository: str, reference: str) -> SourceImage:
    """An image of a registry, for this machine's architecture where there are several."""
    store = RegistryBlobs(registry, repository)
    finder = ImageFinder(store)
    top = registry.manifest(repository, reference)
    document = parse_manifest(top.raw, f"{store.where}, {top.digest}")
    if isinstance(document, ImageIndex):
        image = finder.the_image(document.entries)
    else:
        image = StoredManifest(top.digest, document)
    name = f"{store.where}@{image.digest}"
    return stored_image(store, image, finder.description(image), name)
