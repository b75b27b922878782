"""Manifests, indexes and configurations: JSON that somebody else wrote, checked where it comes in.

Whatever is in them, the outcome is a value of the types below or an ImageMetadataError that names
the field (opencontainers/image-spec: manifest.md, image-index.md, config.md, descriptor.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from slipway.core import SlipwayError

MANIFEST_MAX = 4 << 20
"""Bytes of a manifest or an index, as registries limit them (distribution, "Push")."""

CONFIG_MAX = 8 << 20
"""Bytes of an image's configuration; real ones stay far below."""

TIME_MAX = (1 << 32) - 1
"""The last second that squashfs can say: in the year 2106."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIZE_MAX = 1 << 60
_ATTESTATION = "vnd.docker.reference.type"
_NOT_LAYERS = ("in-toto", "simplesigning", "vnd.oci.empty", "spdx", "cyclonedx")


class ImageMetadataError(SlipwayError):
    """An image's manifest, index or configuration is damaged, or is none."""


@dataclass(frozen=True)
class JsonFields:
    """An object of a JSON document; each method gives a field of one type. `where` is for errors.

    A field that is null counts as absent, as Go's encoding/json reads it.
    """

    fields: Mapping[str, Any]
    where: str
    path: str = ""

    def fail(self, key: str, what: str) -> NoReturn:
        """Raise the error for a field."""
        name = f"{self.path}.{key}" if self.path else key
        raise ImageMetadataError(f"the field {name!r} {what}", where=self.where)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.fields.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "is not a string")
        return _clean_text(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; a lone string is a list of one, as in configurations of old."""
        value = self.fields.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (_clean_text(value),)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, "is not a list of strings")
        return tuple(map(_clean_text, value))

    def object(self, key: str) -> JsonFields:
        """An object; an empty one where it is absent."""
        value = self.fields.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.fail(key, "is not an object")
        return JsonFields(value, self.where, f"{self.path}.{key}" if self.path else key)

    def objects(self, key: str) -> list[JsonFields]:
        """A list of objects."""
        value = self.fields.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(key, "is not a list of objects")
        return [JsonFields(item, self.where, f"{key}[{at}]") for at, item in enumerate(value)]

    def text_map(self, key: str) -> dict[str, str]:
        """An object of strings."""
        inner = self.object(key)
        return {_clean_text(name): inner.text(name) for name in inner.fields}

    def size(self, key: str) -> int:
        """A number of bytes."""
        value = self.fields.get(key)
        if type(value) is not int or not 0 <= value < _SIZE_MAX:
            self.fail(key, "is not a number of bytes")
        return value

    def digest(self, key: str) -> str:
        """A sha256 digest."""
        value = self.text(key)
        if not _DIGEST.fullmatch(value):
            self.fail(key, "is not a sha256 digest")
        return value

    def digests(self, key: str) -> tuple[str, ...]:
        """A list of sha256 digests."""
        values = self.texts(key)
        if not all(map(_DIGEST.fullmatch, values)):
            self.fail(key, "is not a list of sha256 digests")
        return values

    def time(self, key: str) -> int:
        """An RFC 3339 time as seconds, see `timestamp_seconds`."""
        text = self.text(key)
        try:
            return timestamp_seconds(text)
        except ImageMetadataError:
            self.fail(key, "is not a time")


def _clean_text(text: str) -> str:
    """Half a surrogate pair is no character: U+FFFD, as Go reads it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def parse_document(raw: bytes, where: str, limit: int = MANIFEST_MAX) -> JsonFields:
    """A JSON object in UTF-8, of at most `limit` bytes. Raises ImageMetadataError."""
    if len(raw) > limit:
        raise ImageMetadataError(f"more than {limit} bytes, which no image's has", where=where)
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ImageMetadataError("this is not JSON in UTF-8", where=where) from error
    if not isinstance(value, dict):
        raise ImageMetadataError("this is not a JSON object", where=where)
    return JsonFields(value, where)


def parse_list(raw: bytes, where: str, key: str) -> list[JsonFields]:
    """A JSON list of objects; `key` is what errors call it."""
    document = parse_document(b'{"%s":%s}' % (key.encode(), raw), where)
    return document.objects(key)


def timestamp_seconds(timestamp: str | None) -> int:
    """An RFC 3339 time -> whole seconds since the epoch, from 0 to TIME_MAX; 0 where none is said.

    Raises ImageMetadataError for any other text. Engines write more decimals than Python reads.
    """
    if not timestamp:
        return 0
    parts = re.fullmatch(r"(.{19})(?:\.\d+)?(Z|[+-]\d\d:\d\d)", timestamp)
    try:
        if parts is None:
            raise ValueError(timestamp)
        zone = parts[2].replace("Z", "+00:00")
        seconds = datetime.fromisoformat(f"{timestamp[:19]}{zone}").timestamp()
    except (ValueError, OverflowError) as error:
        raise ImageMetadataError(f"{timestamp!r} is not a time") from error
    return min(max(0, int(seconds)), TIME_MAX)


@dataclass(frozen=True)
class BlobDescriptor:
    """A blob that a document names. `platform` is `os/architecture`, empty where it is not said."""

    digest: str
    size: int
    media_type: str
    platform: str
    names: tuple[str, ...]
    is_attestation: bool


def _descriptor(fields: JsonFields) -> BlobDescriptor:
    platform = fields.object("platform")
    operating_system, architecture = platform.text("os"), platform.text("architecture")
    annotations = fields.text_map("annotations")
    names = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    return BlobDescriptor(
        fields.digest("digest"),
        fields.size("size"),
        fields.text("mediaType"),
        f"{operating_system}/{architecture}" if operating_system or architecture else "",
        tuple(annotations[name] for name in names if annotations.get(name)),
        _ATTESTATION in annotations or operating_system == architecture == "unknown",
    )


@dataclass(frozen=True)
class ImageIndex:
    """A list of images, or of further lists."""

    entries: tuple[BlobDescriptor, ...]


@dataclass(frozen=True)
class ImageManifest:
    """One image: its configuration and its layers, lowest first."""

    config: BlobDescriptor
    layers: tuple[BlobDescriptor, ...]
    is_artifact: bool
    """Whether it is something else that is stored as an image is: an attestation, a signature."""


def parse_manifest(raw: bytes, where: str) -> ImageManifest | ImageIndex:
    """A manifest or an index. Raises ImageMetadataError."""
    document = parse_document(raw, where)
    is_index = "manifests" in document.fields
    if is_index and ("config" in document.fields or "layers" in document.fields):
        # One digest, two meanings: CVE-2021-41190.
        raise ImageMetadataError("both a manifest and an index", where=where)
    if is_index:
        return ImageIndex(tuple(map(_descriptor, document.objects("manifests"))))
    if "config" not in document.fields:
        raise ImageMetadataError("this is no image's manifest: it names no config", where=where)
    config = _descriptor(document.object("config"))
    layers = tuple(map(_descriptor, document.objects("layers")))
    types = [config.media_type, *(layer.media_type for layer in layers)]
    artifact = bool(document.text("artifactType")) or any(
        word in media_type for media_type in types for word in _NOT_LAYERS
    )
    return ImageManifest(config, layers, artifact)


@dataclass(frozen=True)
class ImageConfig:
    """The parts of an image's config that enroot reads."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted by key
    volumes: tuple[str, ...] = ()  # sorted

    @classmethod
    def from_inspect(cls, config: Mapping[str, Any], where: str = "the image") -> ImageConfig:
        """From the `Config` of an image inspection or of an OCI config; any key may be null."""
        return cls.from_fields(JsonFields(config, where, "config"))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ImageConfig:
        """As `from_inspect`. Raises ImageMetadataError; no text has a NUL, which no file can."""
        config = cls(
            env=fields.texts("Env"),
            entrypoint=fields.texts("Entrypoint"),
            cmd=fields.texts("Cmd"),
            working_dir=fields.text("WorkingDir"),
            labels=tuple(sorted(fields.text_map("Labels").items())),
            volumes=tuple(sorted(map(_clean_text, fields.object("Volumes").fields))),
        )
        for key, texts in (
            ("Env", config.env),
            ("Entrypoint", config.entrypoint),
            ("Cmd", config.cmd),
            ("WorkingDir", (config.working_dir,)),
            ("Labels", tuple(word for pair in config.labels for word in pair)),
            ("Volumes", config.volumes),
        ):
            if any("\0" in text for text in texts):
                fields.fail(key, "holds a NUL character")
        return config


@dataclass(frozen=True)
class ImageDescription:
    """An image's configuration: what it was made as, and the digests of its unpacked layers."""

    architecture: str
    created: int  # seconds since the epoch; 0 where it is not said
    config: ImageConfig
    diff_ids: tuple[str, ...]


def parse_image_config(raw: bytes, where: str) -> ImageDescription:
    """An image's configuration. Raises ImageMetadataError."""
    document = parse_document(raw, where, CONFIG_MAX)
    rootfs = document.object("rootfs")
    if "diff_ids" not in rootfs.fields:
        rootfs.fail("diff_ids", "is not there: this is no image's configuration")
    return ImageDescription(
        document.text("architecture"),
        document.time("created"),
        ImageConfig.from_fields(document.object("config")),
        rootfs.digests("diff_ids"),
    )
