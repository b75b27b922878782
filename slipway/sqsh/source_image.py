"""An image to export: one immutable value, whatever source it comes from."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass

from slipway.sqsh.image_documents import ImageConfig
from slipway.squashfs import Source

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def machine_architecture() -> str:
    """This machine's, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class SourceImage:
    """An image: what is known of it, and its layers as something that can be read, lowest first.

    Nothing in the .sqsh depends on the source: `reference`, `id`, `digests` and `digest` go into
    the sidecar and into the names of files only.
    """

    reference: str  # what it is called where it comes from
    id: str  # of its configuration; what the engine calls it where that is not known
    digests: tuple[str, ...]  # "repository@sha256:..." that registries gave it
    digest: str  # names its content: of its manifest, else its id
    size: int  # bytes, unpacked
    architecture: str
    created: int  # seconds since the epoch; 0 where the image does not say
    config: ImageConfig
    layers: tuple[Source, ...]

    @property
    def provenance(self) -> str:
        """Where the image comes from, as /etc/rc says it: the chain id of its layers.

        opencontainers/image-spec:config.md, "Layer ChainID". Unlike a name, it is the same in an
        engine, a registry and a file.
        """
        chain = ""
        for layer in self.layers:
            pair = f"{chain} {layer.digest}".encode()
            chain = f"sha256:{hashlib.sha256(pair).hexdigest()}" if chain else layer.digest
        return f"oci-chain-id:{chain}"

    @property
    def foreign_architecture(self) -> str | None:
        """What to say of an image that this machine does not run; None where it does."""
        machine = machine_architecture()
        if self.architecture in ("", machine):
            return None
        return f"the image is for {self.architecture}, this machine is {machine}"
