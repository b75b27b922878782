"""TODO."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.core import SlipwayError
from slipway.registry import Manifest, digest_of
from slipway.sqsh.source_image import ImageConfig, ImageFacts, SourceImage, timestamp_seconds
from slipway.squashfs import TarSource

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class StoredImage:
    """An image that can be exported, and the digest of its manifest, which names its content."""

    origin: SourceImage
    digest: str


def _architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _origin(
    name: str,
    provenance: str,
    manifest: Manifest,
    raw_config: bytes,
    open_blob: Callable[[str], Iterator[bytes]],
) -> SourceImage:
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
    image = ImageFacts(
        reference=name,
        id=content["config"]["digest"],
        digests=(name,),
        # Nothing tells the unpacked size; training images' layers are gzip at about 0.45.
        size=int(sum(source.size for source in sources) / 0.45),
        created=timestamp_seconds(config.get("created")),
        config=ImageConfig.from_inspect(config.get("config") or {}),
    )
    return SourceImage(image, tuple(sources), provenance, engine_files=False)


def _opener(
    open_blob: Callable[[str], Iterator[bytes]], digest: str
) -> Callable[[], Iterator[bytes]]:
    return lambda: open_blob(digest)
