"""One image without an engine: its base, its context, what is put on top, and where that goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from slipway import registry, sqsh, squashfs
from slipway.append import (
    AppendedDelivery,
    AppendedImage,
    AppendRequest,
    LayerBlob,
    NeedsEngineError,
    append_image,
    as_base,
    packages_of_base,
    put_on,
    write_layout,
)
from slipway.core import CredentialsFor, Event, OnEvent, SlipwayError, human_bytes
from slipway.derive import BuildInputs
from slipway.inventory import LayeredImage, LayerNotes
from slipway.matrix import Image, image_tag, repository_name
from slipway.pipeline.appended.base_sources import BaseSources
from slipway.pipeline.appended.ran_steps import RanSteps, image_ran_steps
from slipway.pipeline.build_requests import files_context, launcher_context
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.image_run import (
    BUILD_ID_LABEL,
    ImageRun,
    StageResult,
    export_request,
    image_reference,
)
from slipway.pipeline.recording import note_appended_layers
from slipway.pipeline.settings import Settings
from slipway.pipeline.targets import (
    DocumentSources,
    attach_documents,
    prepare_image_repository,
)
from slipway.records import MACHINES, BuildRecord, ExportRecord, ImageRecord
from slipway.wheels import ContextRequest, make_image_context

if TYPE_CHECKING:
    from slipway.registry import Target


@dataclass(frozen=True)
class AppendContext:
    """What the stages share: the checkout, settings, bases, and who is told.

    `inputs` are those of all images of the run and of what these stand on; `images` has those of
    the matrix that others of the run stand on, once they are made. `target` is asked for layers
    that only an engine makes; None where there is none to ask.
    """

    checkout: Checkout
    settings: Settings
    bases: BaseSources
    credentials: CredentialsFor
    on_event: OnEvent
    inputs: Mapping[str, BuildInputs]
    target: Target | None
    images: dict[str, AppendedImage] = field(default_factory=dict)

    def base(self, image: Image) -> LayeredImage:
        """What an image stands on. Raises SlipwayError."""
        if image.base.image is not None:
            return as_base(self.below(image.base.image))
        return self.bases.base(image.base, self.inputs[image.name].base)

    def below(self, image: Image) -> AppendedImage:
        """An image of the matrix that another stands on: made in the first place that asks."""
        if image.name not in self.images:
            self.images[image.name] = _append(self, image, f"build {image.name}")
        return self.images[image.name]

    def packages(self, image: Image) -> Mapping[str, str] | None:
        """The Python packages of the base: from the lock, else read from the base's layers.

        For a base of our own the lock has what we put into it, and not all that is there.
        """
        base = image.base
        lock = self.checkout.locks.bases.get(base.name)
        if base.registry and lock and lock.packages is not None:
            return lock.packages
        if not image.python_addons:
            return None
        return packages_of_base(
            self.base(image),
            base.family.python,
            base.facts.python,
            LayerNotes(self.checkout.project.cache, self.checkout.project.shared),
            self.on_event,
        )


OnLayer = Callable[[LayerBlob], None]


def append_stage(
    context: AppendContext, run: ImageRun, delivery: AppendedDelivery | None
) -> AppendedImage:
    """Make what is new of an image, and its layout below .slipway/layouts; layers are given to the
    delivery as they are made."""
    started = time.monotonic()
    image, project = run.image, context.checkout.project
    inputs = context.inputs[image.name]
    task = f"build {image.name}"
    context.on_event(Event("start", task))
    try:
        appended = _append(context, image, task, delivery.add if delivery else None)
    except SlipwayError as error:
        context.on_event(Event("failed", task, text=error.what))
        raise
    reference = image_reference(context.checkout.matrix, image, inputs.build_id)
    folder = project.layouts / image.name
    write_layout(appended, folder, reference)
    seconds = time.monotonic() - started
    added = f"{human_bytes(appended.added_bytes)} in {len(appended.layers)} layers"
    context.on_event(Event("done", task, text=f"{added} on {appended.base.where}"))
    fresh = run.record.built is None or run.record.built.image_id != appended.config_digest
    if fresh:
        run.record = ImageRecord()
        built = BuildRecord(
            inputs.build_id,
            inputs.as_json(),
            reference,
            appended.config_digest,
            appended.manifest.size,
            seconds,
        )
        run.save(project, built=built)
    note_appended_layers(project, run, appended)
    run.steps.append(StageResult("build", fresh, seconds, f"oci:{folder} ({added})"))
    return appended


def _append(
    context: AppendContext, image: Image, task: str, on_layer: OnLayer | None = None
) -> AppendedImage:
    checkout = context.checkout
    base = context.base(image)
    steps = _ran_steps(context, image, base)
    ran = _ran_layers(context, image, steps)
    packages = context.packages(image)
    files = make_image_context(
        ContextRequest(
            checkout.project,
            checkout.matrix,
            image,
            checkout.locks,
            engine=None,
            base=base.where,
            packages=packages,
            steps=False,
        ),
        context.on_event,
    )
    request = AppendRequest(
        dockerfile=steps.dockerfile,
        context=(
            *files,
            *files_context(checkout.project, image),
            *launcher_context(checkout.project, image.base.family.python),
        ),
        labels={BUILD_ID_LABEL: context.inputs[image.name].build_id},
        python=image.base.facts.python,
        machine=MACHINES[image.base.facts.architecture],
        cache=checkout.project.cache,
        packages=packages,
        shared=checkout.project.shared,
        ran=ran,
        on_layer=on_layer or (lambda _: None),
    )
    appended = append_image(base, request, task, context.on_event)
    under = image.base.image
    return put_on(context.below(under), appended) if under else appended


def _ran_steps(context: AppendContext, image: Image, base: LayeredImage) -> RanSteps:
    return image_ran_steps(
        context,
        image,
        context.checkout.dockerfile(image),
        context.inputs[image.name].layers,
        base.config["rootfs"]["diff_ids"],
    )


def _ran_layers(context: AppendContext, image: Image, steps: RanSteps) -> dict[str, LayerBlob]:
    """The layers of steps that run something in the base, as an engine has made them.

    Raises NeedsEngineError where one is neither here nor in the target.
    """
    layers = steps.find(context.target)
    if not steps.keys.keys() - layers.keys():
        return layers
    target = context.target
    where = f"neither here nor in {target.host}" if target else "not here"
    because = {
        "packages of the distribution, whose scripts and package manager run": [
            addon.name for addon in image.own_addons if addon.system
        ],
        "built by a script of the repository that runs": [
            addon.name for addon in image.own_addons if addon.source
        ],
        "whose modules are compiled": [
            addon.name for addon in image.python_addons if image.bytecode
        ],
    }
    reasons = [f"{', '.join(names)}, {what}" for what, names in because.items() if names]
    raise NeedsEngineError(
        f"{image.name} has {' and '.join(reasons)} in a container of the base: without an engine "
        f"there is none, and a layer that one has made is {where}",
        cure=f"Push {image.name} once with an engine (`./inv push {image.name}`): the target keeps "
        "these layers. Or build it with one.",
    )


@contextlib.contextmanager
def open_delivery(
    context: AppendContext, run: ImageRun, target: Target
) -> Iterator[AppendedDelivery]:
    """The image's way into the target under its immutable tag, open while it is made.

    A repository that is missing is made when the first layer is there to be put.
    """
    image, checkout = run.image, context.checkout
    matrix, on_event = checkout.matrix, context.on_event
    name = repository_name(image, matrix.repository_prefix)
    # What stands on an image of the matrix is sent with that one's layers, in the end.
    base = context.base(image) if image.base.image is None else None
    with (
        registry.RegistryClient(
            target.host, context.credentials, on_event=on_event, uploads=checkout.project.uploads
        ) as client,
        AppendedDelivery(
            registry.Repository(client, name),
            image_tag(image, context.inputs[image.name].build_id),
            on_event,
            checkout.project.shared,
            base,
            partial(
                prepare_image_repository, target, matrix, name, context.settings.sharing, on_event
            ),
        ) as delivery,
    ):
        yield delivery


def deliver_stage(
    context: AppendContext,
    run: ImageRun,
    appended: AppendedImage,
    delivery: AppendedDelivery,
    target: Target,
) -> StageResult:
    """Have the image in the target."""
    image = run.image
    result = delivery.finish(appended)
    _ran_steps(context, image, context.base(image)).put(target)
    new = run.save_push(context.checkout.project, target.name, result)
    sent = f", {human_bytes(result.sent)} sent" if not result.already else ""
    return StageResult("push", not result.already, result.seconds, f"{new.uri}@{new.digest}{sent}")


def document_appended(
    context: AppendContext, run: ImageRun, base_layers: int, target: Target
) -> StageResult:
    """Put the bill of materials and the build's record beside the pushed image."""
    pushed = run.record.pushed[target.name]
    if pushed.documented:
        return StageResult("bill", False, 0.0, f"beside {pushed.by_digest}")
    sources = DocumentSources(context.checkout, context.credentials, context.on_event, base_layers)
    return attach_documents(sources, run, target)


def export_appended(
    context: AppendContext, run: ImageRun, store: sqsh.BlobStore, digest: str, *, force: bool
) -> StageResult:
    """Write the image's .sqsh, its layers streamed from where they are."""
    started = time.monotonic()
    project, settings, built = context.checkout.project, context.settings, run.built
    request = export_request(project, run, settings, force=force)
    path = request.destination
    before = path.stat().st_ino if path.exists() else None
    sidecar = sqsh.export_blobs(
        store,
        digest,
        request,
        cache=squashfs.layer_cache(project, settings.sqsh_cache),
        on_event=context.on_event,
    )
    seconds = time.monotonic() - started
    new = ExportRecord(built.image_id, str(path), sidecar.digest, sidecar.size, seconds)
    run.save(project, exported=new)
    return StageResult("sqsh", path.stat().st_ino != before, seconds, str(path))
