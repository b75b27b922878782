"""Layers of steps that run programs of the base: made once by an engine, kept by the target.

Such a layer is named by a key over all that decides it, the layers of the base among that. Who has
the key takes the layer: from this machine's cache, else from the target's tag `step-KEY`, which
stands in the repository of the images beside builds that have the layer, so that keeping it costs
a manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slipway import engine, registry
from slipway.append import (
    LayerBlob,
    LayerStore,
    NeedsEngineError,
    bytecode_tar,
    compiled_sections,
    dockerfile_through,
    ran_sections,
)
from slipway.core import CredentialsFor, Event, OnEvent, Project
from slipway.matrix import Image, repository_name
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.context import PipelineContext
from slipway.registry import PackedTar
from slipway.squashfs import decompressed_stream

if TYPE_CHECKING:
    from slipway.registry import Target

_LABEL = "io.slipway.step"  # the whole key, in the configuration of what keeps a layer


@dataclass(frozen=True)
class RanSteps:
    """The steps of one image that run something in its base. `keys`: section -> key."""

    project: Project
    name: str  # of the image
    path: str  # of its repository in a target
    dockerfile: str
    keys: Mapping[str, str]
    credentials: CredentialsFor
    on_event: OnEvent

    @property
    def task(self) -> str:
        """As events name it."""
        return f"build {self.name}"

    @property
    def _store(self) -> LayerStore:
        return LayerStore(self.project.cache / "layers", self.project.shared)

    def find(self, target: Target | None) -> dict[str, LayerBlob]:
        """The layers that are here or in the target, by section."""
        found = {s: self._store.kept(s, key) for s, key in self.keys.items()}
        layers = {section: layer for section, layer in found.items() if layer is not None}
        missing = [section for section in self.keys if section not in layers]
        if target is None or not missing:
            return layers
        with registry.RegistryClient(target.host, self.credentials) as client:
            for section in missing:
                if layer := self._take(section, registry.Repository(client, self.path)):
                    layers[section] = layer
        return layers

    def make(self, context: PipelineContext, request: engine.BuildRequest) -> dict[str, LayerBlob]:
        """All of them: what is neither here nor in the target is made by the engine.

        Raises NeedsEngineError where the engine's disk cannot be read from here.
        """
        layers = self.find(context.target)
        for section in self.keys:
            if section not in layers:
                layers[section] = self._build(section, context, request)
        return layers

    def put(self, target: Target) -> None:
        """Have the target keep the layers that are here and that it does not keep.

        The image is in the target by now, so what fails is told and no more.
        """
        found = [(s, key, self._store.kept(s, key)) for s, key in self.keys.items()]
        here = [(section, key, layer) for section, key, layer in found if layer is not None]
        if not here:
            return
        try:
            with registry.RegistryClient(target.host, self.credentials) as client:
                for section, key, layer in here:
                    at = registry.Repository(client, self.path)
                    if client.head(self.path, _tag(key)) is None:
                        self._put(at, section, key, layer)
        except registry.ImmutableTagError:
            return  # another builder has put it in this moment
        except registry.RegistryError as error:
            text = f"the target does not keep the layers of its steps for others: {error.what}"
            self.on_event(Event("notice", f"push {self.name}", text=text))

    def _put(self, at: registry.Repository, section: str, key: str, layer: LayerBlob) -> None:
        document = {
            "architecture": "amd64",  # of no meaning: layers are taken by their key
            "os": "linux",
            "config": {"Labels": {_LABEL: key}},
            "history": [{"created_by": section}],
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
        config = json.dumps(document, sort_keys=True).encode()
        blobs = [
            registry.BlobTransfer(layer.digest, layer.size, registry.FileBlob(layer.path)),
            registry.BlobTransfer(
                registry.digest_of(config), len(config), registry.MemoryBlob(config)
            ),
        ]
        registry.deliver_blobs(at, blobs, f"push {at.name(_tag(key))}", self.on_event)
        described = (registry.digest_of(config), len(config))
        manifest = registry.schema2_manifest(described, [(layer.digest, layer.size)])
        at.put_tagged(_tag(key), manifest)

    def _take(self, section: str, at: registry.Repository) -> LayerBlob | None:
        """The target's layer; None where it keeps none of this key. Raises RegistryError."""
        key, client = self.keys[section], at.client
        try:
            manifest = client.image(at.path, _tag(key))
            config = client.config(at.path, manifest)
        except (registry.ImageMissingError, registry.RepositoryMissingError):
            return None
        labels: Any = (config.get("config") or {}).get("Labels")
        parts = manifest.json()["layers"]
        if not isinstance(labels, dict) or labels.get(_LABEL) != key or len(parts) != 1:
            return None
        self.on_event(Event("progress", self.task, step=f"{section}: from {at.name(_tag(key))}"))
        digest, size = str(parts[0]["digest"]), int(parts[0]["size"])
        packed = PackedTar(digest, str(config["rootfs"]["diff_ids"][0]), size)

        def write(path: Path) -> PackedTar:
            with path.open("wb") as stream:
                for piece in client.blob_stream(at.path, digest, size):
                    stream.write(piece)
            for _ in _unpacked(path, packed.diff_id, at.name(_tag(key))):
                pass  # it is read for its digest
            return packed

        return self._store.keep(section, key, write)

    def _build(
        self, section: str, context: PipelineContext, request: engine.BuildRequest
    ) -> LayerBlob:
        """Have the engine run the step on what stands below it, and keep what it leaves."""
        key = self.keys[section]
        self.on_event(Event("progress", self.task, step=f"{section}: run by the engine, once"))
        part = dataclasses.replace(
            request,
            dockerfile=dockerfile_through(self.dockerfile, section),
            tags=(f"slipway.step/{self.path}:{key[:12]}",),
            labels={},
        )
        log = context.project.logs / f"step-{self.name}.log"
        image_id = engine.build_image(
            context.engine,
            part,
            engine.BuildAttempt(self.task, self.credentials, self.on_event, log, context.cancel),
        )
        try:
            pieces = _top_layer(context.engine, image_id)
            if section in compiled_sections(self.dockerfile):
                pieces = bytecode_tar(pieces, context.project.cache)
            return self._store.keep(section, key, lambda path: registry.write_gzip(pieces, path))
        finally:
            with engine.sdk_errors(context.engine, f"removing {part.tags[0]}"):
                context.engine.client.api.remove_image(part.tags[0])


class StepContext(Protocol):
    """What the steps of an image need of a run, with an engine or without one."""

    @property
    def checkout(self) -> Checkout:
        """The checkout that the image is of."""

    @property
    def credentials(self) -> CredentialsFor:
        """For the target."""

    @property
    def on_event(self) -> OnEvent:
        """Who is told."""


def image_ran_steps(
    context: StepContext,
    image: Image,
    dockerfile: str,
    layer_keys: Mapping[str, str],
    diff_ids: Sequence[str],
) -> RanSteps:
    """The steps of an image that run something in its base; see `ran_step_keys`."""
    checkout = context.checkout
    return RanSteps(
        checkout.project,
        image.name,
        repository_name(image, checkout.matrix.repository_prefix),
        dockerfile,
        ran_step_keys(dockerfile, layer_keys, diff_ids),
        context.credentials,
        context.on_event,
    )


def ran_step_keys(
    dockerfile: str, layer_keys: Mapping[str, str], diff_ids: Sequence[str]
) -> dict[str, str]:
    """Section -> key, of the steps of an image that run something in its base.

    `layer_keys`: what a build's inputs say of each layer. `diff_ids`: of the base, which for one
    that Slipway makes are not decided by its recipe alone.
    """
    keys = {}
    for section in ran_sections(dockerfile):
        counted = json.dumps([layer_keys[section], *diff_ids])
        keys[section] = hashlib.sha256(counted.encode()).hexdigest()
    return keys


def _tag(key: str) -> str:
    return f"step-{key[:24]}"


def _top_layer(running: engine.Engine, image_id: str) -> Iterator[bytes]:
    """The tar of an image's last layer. Raises NeedsEngineError where it cannot be read here."""
    content = engine.find_content_image(running, image_id)
    stored = None if content else engine.find_layer_tars(running, image_id)
    if content:
        config = json.loads(content.config)
        path = content.blob(str(json.loads(content.manifest)["layers"][-1]["digest"]))
        diff_id = config["rootfs"]["diff_ids"][-1]
        tar = _unpacked(path, diff_id, str(path)) if path.is_file() else None
    else:
        config = json.loads(stored.config) if stored else {}
        tar = stored.layers[-1].pieces() if stored else None
    if tar is None or config["history"][-1].get("empty_layer"):
        raise NeedsEngineError("the layer of a step cannot be read off the engine's disk")
    return tar


def _unpacked(blob: Path, diff_id: str, where: str) -> Iterator[bytes]:
    """The tar in a blob. Raises ManifestError at its end where it is not the one that is named."""
    hasher = hashlib.sha256()
    for piece in decompressed_stream(registry.FileBlob(blob).open(0)):
        hasher.update(piece)
        yield piece
    if f"sha256:{hasher.hexdigest()}" != diff_id:
        raise registry.ManifestError(
            "the layer is not the tar that its configuration names", where=where
        )
