"""A base and a build's steps -> an image: new layers, configuration and manifest.

The same inputs give the same bytes on any machine. What is written down of a layer is what the
base says of itself (its date) and what stands in the Dockerfile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slipway.append.build_steps import (
    DockerfileStep,
    NeedsEngineError,
    copy_paths,
    json_words,
    key_values,
)
from slipway.append.layer_blobs import LayerBlob
from slipway.append.layer_files import LayerFile, LayerPlan
from slipway.core import SlipwayError
from slipway.engine import ContextFile
from slipway.inventory import FOLDER, LayeredImage
from slipway.registry import OCI_MANIFEST, Manifest, digest_of, to_schema2

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_NAMES = """
    bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr usr/bin
    usr/include usr/lib usr/local usr/local/bin usr/local/lib usr/local/share usr/sbin usr/share var
"""
#: Folders that every Linux base has (Filesystem Hierarchy Standard 3.0): they stay as they are.
_STANDARD = frozenset(_NAMES.split())


@dataclass(frozen=True)
class AppendedImage:
    """An image whose base's layers are where the base is, and whose own are in the store.

    `folders`: all that its own files lie in, without a slash before them. A link of the base in
    the place of one would be hidden.
    """

    base: LayeredImage
    layers: tuple[LayerBlob, ...]
    config: bytes
    folders: tuple[str, ...] = ()

    @cached_property
    def manifest(self) -> Manifest:
        """The Docker schema 2 manifest: SageMaker takes no other.

        Raises ManifestError where the base's layers are not gzip.
        """
        return _image_manifest(self.base, self.config, self.layers)

    @property
    def config_digest(self) -> str:
        """What a graph driver's engine calls the image."""
        return digest_of(self.config)

    @property
    def added_bytes(self) -> int:
        """Compressed bytes of the layers that are new."""
        return sum(layer.size for layer in self.layers)


class ImageConfiguration:
    """The configuration of the base, changed step by step as an engine does."""

    def __init__(self, base: LayeredImage) -> None:
        self._document: dict[str, Any] = json.loads(json.dumps(base.config))
        for legacy in ("id", "parent", "container", "container_config", "docker_version"):
            self._document.pop(legacy, None)
        self._run: dict[str, Any] = dict(self._document.get("config") or {})
        self._created = self._document.get("created") or "1980-01-01T00:00:00Z"
        self._history: list[dict[str, Any]] = list(self._document.get("history") or ())
        self._diff_ids: list[str] = list(self._document["rootfs"]["diff_ids"])

    @property
    def environment(self) -> dict[str, str]:
        """ENV so far."""
        pairs = (str(entry).partition("=") for entry in self._run.get("Env") or ())
        return {name: value for name, _, value in pairs}

    @property
    def working_dir(self) -> str:
        """WORKDIR so far."""
        return str(self._run.get("WorkingDir") or "/")

    def apply(self, step: DockerfileStep) -> None:
        """A step that changes no file. Raises NeedsEngineError for one that is not known."""
        if step.name == "ENV":
            merged = self.environment | key_values(step, self.environment)
            self._run["Env"] = [f"{name}={value}" for name, value in merged.items()]
        elif step.name == "LABEL":
            self.label(key_values(step, self.environment))
        elif step.name == "USER":
            self._run["User"] = step.text
        elif step.name == "ENTRYPOINT":
            self._run["Entrypoint"] = list(json_words(step, step.text))
            self._run["Cmd"] = None  # an image's own entrypoint takes the base's words away
        elif step.name == "CMD":
            self._run["Cmd"] = list(json_words(step, step.text))
        else:
            raise NeedsEngineError(
                f"{step.section}: {step.words[:100]} needs an engine",
                cure="Build this image with an engine (without --no-engine).",
            )
        self._history.append(
            {"created": self._created, "created_by": step.words, "empty_layer": True}
        )

    def label(self, labels: Mapping[str, str]) -> None:
        """Add labels without a step of their own."""
        self._run["Labels"] = {**(self._run.get("Labels") or {}), **labels}

    def add_layer(self, layer: LayerBlob, words: str) -> None:
        """One more layer on top."""
        self._diff_ids.append(layer.diff_id)
        self._history.append(
            {"created": self._created, "created_by": words, "comment": layer.title}
        )

    def document(self) -> bytes:
        """As JSON, keys in order."""
        self._document |= {
            "config": self._run,
            "created": self._created,
            "history": self._history,
            "rootfs": {"type": "layers", "diff_ids": self._diff_ids},
        }
        return json.dumps(self._document, sort_keys=True, separators=(",", ":")).encode()


def _image_manifest(base: LayeredImage, config: bytes, layers: Sequence[LayerBlob]) -> Manifest:
    new = [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers]
    raw = json.dumps(
        {
            "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [*base.layers, *new],
        }
    ).encode()
    return to_schema2(Manifest(OCI_MANIFEST, digest_of(raw), raw))


def copied_files(step: DockerfileStep, context: Iterable[ContextFile]) -> tuple[LayerFile, ...]:
    """The files of a COPY step. Raises SlipwayError where the context has none."""
    source, target = copy_paths(step)
    files = []
    for file in context:
        if file.path == source.rstrip("/"):
            path = target
        elif source.endswith("/") and file.path.startswith(source):
            path = target / file.path.removeprefix(source)
        else:
            continue
        size = len(file.source) if isinstance(file.source, bytes) else file.source.stat().st_size
        files.append(LayerFile(str(path)[1:], file.source, size, file.mode))
    if not files:
        raise SlipwayError(f"{step.section}: the context has no {source}")
    return tuple(files)


def layer_plan(
    title: str,
    files: Iterable[LayerFile],
    there: Iterable[str],
    kinds: Mapping[str, str],
) -> LayerPlan:
    """A layer of these files with the folders that it brings.

    `there`: folders that the base has for certain; `kinds` tells of all others that are known.
    Raises SlipwayError where a link of the base stands on the way: a layer would replace
    it, and what lies behind it would be gone.
    """
    listed = tuple(files)
    above = folders_above(file.path for file in listed)
    for folder in sorted(above):
        if kinds.get(folder, FOLDER) != FOLDER:
            raise NeedsEngineError(
                f"/{folder} is not a folder in the base, and {title} has files below it",
                cure="Build this image with an engine (without --no-engine).",
            )
    known = {*_STANDARD, *there, *(path for path in above if kinds.get(path) == FOLDER)}
    return LayerPlan(title, listed, tuple(sorted(above - known)))


def folders_above(paths: Iterable[str]) -> set[str]:
    """All folders on the way to these relative paths."""
    above: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in above:
            above.add(folder)
            folder = folder.rpartition("/")[0]
    return above
