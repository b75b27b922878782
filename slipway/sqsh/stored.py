"""Images outside of any engine: in a registry, or in an OCI layout on disk.

No engine and no engine's disk takes part: the layers stream from where they are into the layer
cache. opencontainers/image-spec: manifest.md, config.md, image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError, UsageError
from slipway.registry.distribution import Distribution
from slipway.registry.manifests import Manifest, choose, digest_of, media_type_of
from slipway.registry.model import CredentialsFor
from slipway.sqsh.enroot import ImageConfig
from slipway.sqsh.origin import Origin
from slipway.sqsh.source import SourceImage, seconds
from slipway.squashfs.sources import TarSource

_REFERENCE = re.compile(
    r"(?P<host>[^/]+)/(?P<repository>[^@]+?)"
    r"(?::(?P<tag>[^:@/]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 20
_REGISTRY, _LAYOUT = SCHEMES = ("registry://", "oci:")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Stored:
    """An image that can be exported, and the digest of its manifest, which names its content."""

    origin: Origin
    digest: str


@contextmanager
def opened(uri: str, credentials: CredentialsFor) -> Iterator[Stored]:
    """The image of `registry://HOST/REPOSITORY@sha256:...` (or `:TAG`) or `oci:DIR`.

    Layers can be read in the block. Raises UsageError for another kind of URI, RegistryError and
    SlipwayError.
    """
    if uri.startswith(_REGISTRY):
        found = _REFERENCE.fullmatch(uri.removeprefix(_REGISTRY))
        if found is None or not (found["digest"] or found["tag"]):
            raise _usage(uri)
        with Distribution(found["host"], credentials) as registry:
            yield from_registry(registry, found["repository"], found["digest"] or found["tag"])
    elif uri.startswith(_LAYOUT):
        yield from_layout(Path(uri.removeprefix(_LAYOUT)))
    else:
        raise _usage(uri)


def _usage(uri: str) -> UsageError:
    return UsageError(
        f"{uri!r} is not an image to read",
        cure="Name it as registry://HOST/REPOSITORY@sha256:DIGEST, registry://HOST/REPOSITORY:TAG"
        " or oci:FOLDER.",
    )


def from_registry(registry: Distribution, repository: str, reference: str) -> Stored:
    """An image of a registry, for this machine's architecture where there are several."""
    manifest = registry.image(repository, reference, architecture=_architecture())
    content = manifest.json()
    config = registry.blob(repository, content["config"]["digest"])
    name = f"{registry.host}/{repository}@{manifest.digest}"

    def open_blob(digest: str) -> Iterator[bytes]:
        return registry.blob_stream(repository, digest)

    # enroot's own spelling: docker://HOST#REPOSITORY:TAG.
    provenance = f"docker://{registry.host}#{repository}@{manifest.digest}"
    return Stored(_origin(name, provenance, manifest, config, open_blob), manifest.digest)


def from_layout(folder: Path) -> Stored:
    """The one image of an OCI layout, for this machine's architecture where there are several."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        entries = index["manifests"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlipwayError("this is not an OCI layout", where=str(folder)) from error
    if len(entries) != 1:
        raise SlipwayError(
            f"the OCI layout holds {len(entries)} images, not one",
            where=str(folder),
            cure="Copy the one that is wanted into a layout of its own (`skopeo copy`).",
        )
    manifest = _manifest(folder, entries[0]["digest"])
    if manifest.is_index:
        manifest = _manifest(folder, choose(manifest, architecture=_architecture()))
    config = _read_blob(folder, manifest.json()["config"]["digest"])

    def open_blob(digest: str) -> Iterator[bytes]:
        return _stream_blob(folder, digest)

    name = f"oci:{folder.name}@{manifest.digest}"
    return Stored(_origin(name, name, manifest, config, open_blob), manifest.digest)


def _architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _origin(
    name: str,
    provenance: str,
    manifest: Manifest,
    raw_config: bytes,
    open_blob: Callable[[str], Iterator[bytes]],
) -> Origin:
    content, config = manifest.json(), json.loads(raw_config)
    if digest_of(raw_config) != content["config"]["digest"]:
        raise SlipwayError("the image's configuration does not have its digest", where=name)
    try:
        unpacked: list[str] = config["rootfs"]["diff_ids"]
        layers: list[Mapping[str, Any]] = content["layers"]
    except (KeyError, TypeError) as error:
        raise SlipwayError(f"the image's configuration has no {error}", where=name) from error
    if len(unpacked) != len(layers):
        raise SlipwayError(
            f"the image has {len(layers)} layers and its configuration {len(unpacked)}", where=name
        )
    sources = [
        TarSource(diff_id, _opener(open_blob, str(layer["digest"])), int(layer["size"]))
        for diff_id, layer in zip(unpacked, layers, strict=True)
    ]
    image = SourceImage(
        reference=name,
        id=content["config"]["digest"],
        digests=(name,),
        # Nothing tells the unpacked size; training images' layers are gzip at about 0.45.
        size=int(sum(source.size for source in sources) / 0.45),
        created=seconds(config.get("created")),
        config=ImageConfig.from_inspect(config.get("config") or {}),
    )
    return Origin(image, tuple(sources), provenance, engine_files=False)


def _opener(
    open_blob: Callable[[str], Iterator[bytes]], digest: str
) -> Callable[[], Iterator[bytes]]:
    return lambda: open_blob(digest)


def _blob_path(folder: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise SlipwayError(f"{digest!r} is no digest of a blob", where=str(folder))
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _read_blob(folder: Path, digest: str) -> bytes:
    return b"".join(_stream_blob(folder, digest))


def _manifest(folder: Path, digest: str) -> Manifest:
    raw = _read_blob(folder, digest)
    return Manifest(media_type_of(raw, ""), digest, raw)


def _stream_blob(folder: Path, digest: str) -> Iterator[bytes]:
    path = _blob_path(folder, digest)
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                hasher.update(piece)
                yield piece
    except OSError as error:
        raise SlipwayError(f"a blob cannot be read: {error.strerror}", where=str(path)) from error
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise SlipwayError(
            "the blob does not have its digest", where=str(path), cure="Copy the image again."
        )
