"""The same layers as without an engine, loaded into one on top of the base that it has.

What an engine makes of a Dockerfile is its own: times, the cut into layers, its compression. What
is made here is the same on every machine, so an image has one digest whichever engine it is for.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from slipway import engine
from slipway.append import (
    AppendedImage,
    AppendRequest,
    NeedsEngineError,
    append_image,
    ran_sections,
)
from slipway.core import Event, SlipwayError, file_pieces, human_bytes, write_atomic
from slipway.inventory import (
    BlobReader,
    LayeredImage,
    describes,
    open_layered_image,
    stored_layered_image,
)
from slipway.matrix import Base, Image
from slipway.pipeline.appended.ran_steps import image_ran_steps
from slipway.pipeline.context import PipelineContext
from slipway.records import MACHINES
from slipway.registry import OCI_MANIFEST, Manifest, digest_of

if TYPE_CHECKING:
    from slipway.registry import Target

_CONFIG = "application/vnd.oci.image.config.v1+json"
_PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class EngineBase:
    """A base that the engine has as `local`. `reference`: where it is, with its digest.

    `packages`: the Python distributions in it, where an add-on needs to know them.
    """

    base: Base
    local: str
    reference: str
    packages: Mapping[str, str] | None


def load_appended(
    context: PipelineContext,
    image: Image,
    below: EngineBase,
    request: engine.BuildRequest,
    layer_keys: Mapping[str, str],
) -> str:
    """Have an image in the engine that the engine does not build; gives its id.

    Of steps that run something in the base the engine makes those whose layers, by their keys, are
    neither here nor in the target.

    Raises NeedsEngineError where a step has to run in the base, SlipwayError where the base's
    documents cannot be had, or where something does not fit it.
    """
    task = f"build {image.name}"

    def on_event(event: Event) -> None:
        if context.cancel.is_set():
            raise SlipwayError("interrupted")
        context.on_event(event)

    with _open_base(context, below) as base:
        diff_ids = base.config["rootfs"]["diff_ids"]
        steps = image_ran_steps(context, image, request.dockerfile, layer_keys, diff_ids)
        appended = append_image(
            base,
            AppendRequest(
                dockerfile=request.dockerfile,
                context=request.context,
                labels=request.labels,
                python=image.base.facts.python,
                machine=MACHINES[image.base.facts.architecture],
                cache=context.project.cache,
                packages=below.packages,
                shared=context.project.shared,
                ran=replace(steps, on_event=on_event).make(context, request),
            ),
            task,
            on_event,
        )
        _check_folders(context, below, appended)
        archive = _archive(request.tags[0], appended, manifest=context.engine.containerd_store)
    on_event(Event("progress", task, step="load"))
    image_id = engine.load_on_base(context.engine, below.local, archive)
    write_atomic(context.project.logs / f"build-{image.name}.log", _log(appended, image_id))
    return image_id


def keep_ran_steps(
    context: PipelineContext,
    image: Image,
    base: str,
    layer_keys: Mapping[str, str],
    target: Target,
) -> None:
    """Have the target keep the layers of an image's steps that ran in its base, for others.

    `base`: its reference in the engine.
    """
    dockerfile = context.checkout.dockerfile(image)
    if not ran_sections(dockerfile) or engine.find_image_id(context.engine, base) is None:
        return
    diff_ids = engine.inspect_image(context.engine, base)["RootFS"]["Layers"]
    image_ran_steps(context, image, dockerfile, layer_keys, diff_ids).put(target)


def described_by_engine(
    context: PipelineContext, image_id: str, pushed: LayeredImage
) -> LayeredImage:
    """An image in a registry whose layers are read off the engine's disk, where that can be.

    They have what describes the image, and zeros for the rest: for a bill of materials, and
    nothing else.
    """
    stored = engine.find_layer_tars(context.engine, image_id)
    diff_ids = pushed.config["rootfs"]["diff_ids"]
    if stored is None or [layer.diff_id for layer in stored.layers] != diff_ids:
        return pushed
    streams = {
        str(part["digest"]): functools.partial(layer.described, describes)
        for part, layer in zip(pushed.layers, stored.layers, strict=True)
    }
    return replace(pushed, blobs=_EngineBlobs(streams, otherwise=pushed.blobs))


def _archive(reference: str, image: AppendedImage, *, manifest: bool) -> engine.ImageArchive:
    files = {layer.digest: layer.path for layer in image.layers}
    below = [str(layer["digest"]) for layer in image.base.layers]
    document = image.manifest if manifest else None
    return engine.ImageArchive(
        reference,
        (image.config_digest, image.config),
        (*below, *(layer.digest for layer in image.layers)),
        files,
        (document.media_type, document.digest, document.raw) if document else None,
    )


_OTHER_MODES = {"root", "tmp", "var/tmp"}
"""Folders of every base that are not of mode 755, which overlay2 gives to a folder that a layer has
files in and no entry for."""

_LINKS = 'for path; do if [ -L "/$path" ]; then echo "$path"; fi; done'


def _check_folders(context: PipelineContext, below: EngineBase, image: AppendedImage) -> None:
    """Raises NeedsEngineError where a link of the base stands for a folder of ours, which a layer
    would hide and an engine's own build writes through. The base is asked once."""
    if changed := sorted(_OTHER_MODES & {*image.folders}):
        raise NeedsEngineError(f"files lie below /{changed[0]}, which would lose its mode")
    question = json.dumps([image.base.config["rootfs"]["diff_ids"], image.folders])
    key = hashlib.sha256(question.encode("utf-8", "surrogateescape")).hexdigest()
    note = context.project.cache / "base-documents" / f"no-links-{key}"
    if note.exists():
        return
    command = ["/bin/sh", "-c", _LINKS, "sh", *image.folders]
    done = engine.run_once(context.engine, below.local, command, engine.BARE, timeout_s=300)
    links = done.stdout.decode(errors="replace").split()
    if done.exit_code or links:
        raise NeedsEngineError(
            f"/{links[0]} is a link in the base, and files lie below it"
            if links
            else "the base cannot say whether links stand for its folders"
        )
    write_atomic(note, "")


def _log(image: AppendedImage, image_id: str) -> str:
    """What was made of which step, for who looks for the log of the build."""
    layers = iter(image.layers)
    lines = [f"on {image.base.where}, with {len(image.base.layers)} layers"]
    below = len(image.base.config.get("history") or ())
    for step in json.loads(image.config)["history"][below:]:
        lines.append(str(step["created_by"]))
        if not step.get("empty_layer"):
            layer = next(layers)
            lines.append(f"  {layer.digest} {human_bytes(layer.size)}: {layer.title}")
    return "\n".join([*lines, f"loaded as {image_id}", ""])


@contextlib.contextmanager
def _open_base(context: PipelineContext, below: EngineBase) -> Iterator[LayeredImage]:
    """The base by its documents; its layers are read off the engine's disk where that can be."""
    image_id = engine.find_image_id(context.engine, below.local) or below.local
    content = engine.find_content_image(context.engine, image_id)
    stored = None if content else engine.find_layer_tars(context.engine, image_id)
    if below.base.registry is not None:
        kept = context.project.cache / "base-documents"
        with open_layered_image(
            below.reference, context.credentials, below.base.facts.architecture, kept
        ) as image:
            streams: dict[str, _Stream] = {}
            diff_ids = image.config["rootfs"]["diff_ids"]
            if stored and [layer.diff_id for layer in stored.layers] == diff_ids:
                digests = [str(layer["digest"]) for layer in image.layers]
                streams = {
                    digest: layer.pieces
                    for digest, layer in zip(digests, stored.layers, strict=True)
                }
            yield replace(image, blobs=_EngineBlobs(streams, content, image.blobs))
        return
    where = f"{below.local}@{image_id}"
    if content:
        manifest = Manifest(content.media_type, digest_of(content.manifest), content.manifest)
        yield stored_layered_image(where, manifest, content.config, _EngineBlobs({}, content))
    elif stored:
        streams = {layer.diff_id: layer.pieces for layer in stored.layers}
        blobs = _EngineBlobs(streams)
        yield stored_layered_image(where, _plain_manifest(stored), stored.config, blobs)
    else:
        raise NeedsEngineError("the layers of the base cannot be read off the engine's disk")


def _plain_manifest(image: engine.LayerTars) -> Manifest:
    """An image as an engine with graph drivers has it: its layers are tars, not compressed."""
    layers = [
        {"mediaType": _PLAIN_LAYER, "digest": layer.diff_id, "size": layer.size}
        for layer in image.layers
    ]
    digest = digest_of(image.config)
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": digest, "size": len(image.config)},
            "layers": layers,
        }
    ).encode()
    return Manifest(OCI_MANIFEST, digest_of(raw), raw)


_Stream = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class _EngineBlobs:
    """Layers by digest: off the engine's disk as tars or blobs, else from where the base is.

    A tar off the disk has been held to the digest of the tar, which the base's documents name.
    """

    tars: Mapping[str, _Stream] = field(default_factory=dict)
    content: engine.ContentImage | None = None
    otherwise: BlobReader | None = None

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        """A layer in pieces. Raises EngineError, RegistryError."""
        path = self.content.blob(digest) if self.content else None
        if digest in self.tars:
            yield from self.tars[digest]()
        elif path and path.is_file():
            yield from file_pieces(path)
        elif self.otherwise:
            yield from self.otherwise.stream(digest, size)
        else:
            raise NeedsEngineError(f"the engine does not have {digest} any more")
