"""Layers that were made here and not by an engine, as the stages after a build read them.

Apart from what makes them: a run that finds all done asks for these, and imports no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.append import LayerBlob, LayerStore
from slipway.core import Project

if TYPE_CHECKING:
    from slipway.registry import BlobTransfer


@dataclass(frozen=True)
class OwnLayers:
    """Layers that were made here, whatever image they are of."""

    layers: tuple[LayerBlob, ...]

    @classmethod
    def of(cls, project: Project) -> OwnLayers:
        """All that the project keeps."""
        return cls(tuple(LayerStore(project.cache / "layers").blobs()))

    @property
    def transfers(self) -> dict[str, BlobTransfer]:
        """For a push, by the digests of their tars."""
        return {layer.diff_id: layer.transfer for layer in self.layers}

    @property
    def archives(self) -> dict[str, Path]:
        """For a .sqsh, by the digests of their tars."""
        return {layer.diff_id: layer.path for layer in self.layers}

    @property
    def files(self) -> dict[str, Path]:
        """By their own digests."""
        return {layer.digest: layer.path for layer in self.layers}
