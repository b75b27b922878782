"""Bases that Slipway makes itself, kept in the target by their recipe: who needs one next has the
same bytes, and does not make it.

The tag `base-RECIPE` stands in the repository of the images, beside builds that have all of its
layers, so keeping one costs a manifest and a configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import engine, registry
from slipway.core import Event, SlipwayError
from slipway.matrix import LOCAL_REGISTRY, Base, Matrix, repository_name
from slipway.pipeline.context import PipelineContext

if TYPE_CHECKING:
    from slipway.registry import Manifest, Target

RECIPE_LABEL = "io.slipway.local-base"


def shared_base_place(matrix: Matrix, base: Base, recipe: str) -> tuple[str, str]:
    """Repository and tag of a base in a target. `recipe`: `sha256:...`, what decides the base."""
    image = next(image for image in matrix.images if image.base.name == base.name)
    path = repository_name(image, matrix.repository_prefix)
    return path, f"base-{recipe.removeprefix('sha256:')[:12]}"


def take_shared_base(context: PipelineContext, base: Base, recipe: str) -> None:
    """Have the target's base in the engine where the engine has none of this recipe.

    Does nothing where the target has none either, or cannot be asked: the base is made then.
    """
    local = f"{LOCAL_REGISTRY}/{base.repository}:{base.tag}"
    target = context.target
    if target is None or _recipe_of_engine(context, local) == recipe:
        return
    path, tag = shared_base_place(context.matrix, base, recipe)
    try:
        with registry.RegistryClient(target.host, context.credentials) as client:
            manifest = client.image(path, tag)
            labels = client.config(path, manifest)["config"].get("Labels") or {}
        if labels.get(RECIPE_LABEL) != recipe:
            return
        where = f"{target.host}/{path}@{manifest.digest}"
        image_id = engine.pull_image(
            context.engine, where, credentials=context.credentials, on_event=context.on_event
        )
        repository, _, name = local.rpartition(":")
        with engine.sdk_errors(context.engine, f"tagging {local}"):
            context.engine.client.api.tag(image_id, repository, name, force=True)
    except (registry.ImageMissingError, registry.RepositoryMissingError):
        return
    except SlipwayError as error:
        text = f"made here, since the target's could not be had: {error.what}"
        context.on_event(Event("notice", f"base {base.name}", text=text))
        return
    text = f"the target has it, of the same recipe: taken from {where}"
    context.on_event(Event("notice", f"base {base.name}", text=text))


def keep_shared_base(
    context: PipelineContext, base: Base, recipe: str, target: Target, digest: str
) -> None:
    """Have the target keep the base of an image that it has by `digest`, unless it keeps one.

    Where another builder's base is under the image, or the engine's disk cannot be read, none is.
    The image is in the target by now, so what fails here is told and no more.
    """
    path, tag = shared_base_place(context.matrix, base, recipe)
    config = _config_in_engine(context, f"{LOCAL_REGISTRY}/{base.repository}:{base.tag}")
    if config is None:
        return
    try:
        with registry.RegistryClient(target.host, context.credentials) as client:
            if client.head(path, tag) is not None:
                return
            manifest = _base_manifest(client.manifest(path, digest), config, client, path)
            if manifest is None:
                return
            at = registry.Repository(client, path)
            blob = registry.BlobTransfer(
                registry.digest_of(config), len(config), registry.MemoryBlob(config)
            )
            registry.deliver_blobs(at, [blob], f"push {at.name(tag)}", context.on_event)
            at.put_tagged(tag, manifest)
    except registry.ImmutableTagError:
        return  # another builder has put it in this moment
    except registry.RegistryError as error:
        text = f"the target does not keep it for others: {error.what}"
        context.on_event(Event("notice", f"base {base.name}", text=text))


def _recipe_of_engine(context: PipelineContext, local: str) -> str | None:
    if engine.find_image_id(context.engine, local) is None:
        return None
    labels = engine.inspect_image(context.engine, local)["Config"].get("Labels") or {}
    return str(labels.get(RECIPE_LABEL))


def _config_in_engine(context: PipelineContext, local: str) -> bytes | None:
    """The configuration of the base, byte for byte; None where it cannot be read."""
    image_id = engine.find_image_id(context.engine, local)
    if image_id is None:
        return None
    stored = engine.find_content_image(context.engine, image_id) or engine.find_layer_tars(
        context.engine, image_id
    )
    return stored.config if stored else None


def _base_manifest(
    image: Manifest, config: bytes, client: registry.RegistryClient, path: str
) -> Manifest | None:
    """The base's own manifest, of the lowest layers of an image on it."""
    below = registry.parse_json(config, "the base's configuration")["rootfs"]["diff_ids"]
    above = client.config(path, image)["rootfs"]["diff_ids"]
    if above[: len(below)] != below:
        return None
    layers = [(part["digest"], part["size"]) for part in image.json()["layers"][: len(below)]]
    return registry.schema2_manifest((registry.digest_of(config), len(config)), layers)
