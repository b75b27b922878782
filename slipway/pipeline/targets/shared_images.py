"""One build id, one content, whoever builds: what the target has under a build's tag is taken.

Two engines never make the same bytes of one Dockerfile. So a build whose tag the target holds is
not made again, and one that another builder pushed first is given up for the other's: checks, .sqsh
and jobs then speak of one digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway import engine, registry
from slipway.core import CredentialsFor, Event, SlipwayError, human_bytes
from slipway.derive import BuildInputs
from slipway.matrix import Image, Matrix, image_tag, repository_name
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import BUILD_ID_LABEL, ImageRun, image_reference
from slipway.records import BuildRecord, ImageRecord, PushRecord

if TYPE_CHECKING:
    from slipway.registry import RetryPolicy, Target

_ASKED_AT_ONCE = 8


@dataclass(frozen=True)
class WantedBuild:
    """A build that a target is asked for. `pushed`: what we remember of a push of it."""

    image: Image
    build_id: str
    pushed: PushRecord | None = None


@dataclass(frozen=True)
class TargetImages:
    """A target and what it has of the builds that are asked for, by image name."""

    target: Target
    images: Mapping[str, SharedImage]


@dataclass(frozen=True)
class SharedImage:
    """What a target has under the tag of a build.

    `config` is the digest of its configuration, or the id of the engine's image that we pushed.
    """

    uri: str  # host/repository:tag
    digest: str
    config: str
    media_type: str
    size: int  # compressed bytes

    @property
    def by_digest(self) -> str:
        """host/repository@digest."""
        return f"{self.uri.rpartition(':')[0]}@{self.digest}"

    def is_image(self, image_id: str) -> bool:
        """Whether an engine's image is this one (graph drivers and the containerd store differ in
        what an id is the digest of)."""
        return image_id in (self.digest, self.config)


def find_shared_images(
    wanted: Sequence[WantedBuild],
    matrix: Matrix,
    target: Target,
    credentials: CredentialsFor,
    policy: RetryPolicy | None = None,
) -> dict[str, SharedImage]:
    """What the target has of these builds, by image. Raises RegistryError where it does not say.

    One that we remember costs one HEAD request.
    """
    with registry.RegistryClient(target.host, credentials, policy=policy) as client:

        def find(build: WantedBuild) -> SharedImage | None:
            path = repository_name(build.image, matrix.repository_prefix)
            tag = image_tag(build.image, build.build_id)
            pushed = build.pushed
            standing = client.find_digest(path, tag)
            if standing is None:
                return None
            if pushed is not None and standing == pushed.digest:
                return SharedImage(
                    client.name(path, tag),
                    pushed.digest,
                    pushed.image_id,
                    pushed.media_type,
                    pushed.size,
                )
            try:
                manifest = client.image(path, tag)
            except (registry.ImageMissingError, registry.RepositoryMissingError):
                return None
            config = str(manifest.json()["config"]["digest"])
            return SharedImage(
                client.name(path, tag),
                manifest.digest,
                config,
                manifest.media_type,
                manifest.size,
            )

        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            answers = list(pool.map(find, wanted))
    return {
        build.image.name: shared
        for build, shared in zip(wanted, answers, strict=True)
        if shared is not None
    }


def is_taken(run: ImageRun, shared: SharedImage, target: Target) -> bool:
    """Whether the recorded build of this image is the one that the target has."""
    built = run.record.built
    if built is None:
        return False
    pushed = run.record.pushed.get(target.name)
    # A pushed image that had to get another manifest on the way is known by our own record alone.
    ours = pushed is not None and (pushed.digest, pushed.image_id) == (
        shared.digest,
        built.image_id,
    )
    return ours or shared.is_image(built.image_id)


def take_shared_image(
    context: PipelineContext, image: Image, inputs: BuildInputs, shared: SharedImage
) -> ImageRecord:
    """Have the target's image in the engine in place of a build of our own.

    Pulled by digest; layers that the engine has are not fetched. Raises SlipwayError where what is
    under the tag was not made of these inputs.
    """
    started = time.monotonic()
    task = f"build {image.name}"
    context.on_event(Event("start", task))
    text = f"{shared.uri} was built of the same inputs: taken from there"
    context.on_event(Event("notice", task, text=text))
    image_id = engine.find_image_id(context.engine, shared.by_digest) or engine.pull_image(
        context.engine, shared.by_digest, credentials=context.credentials, on_event=context.on_event
    )
    facts = engine.inspect_image(context.engine, image_id)
    label = ((facts.get("Config") or {}).get("Labels") or {}).get(BUILD_ID_LABEL)
    if label != inputs.build_id:
        raise SlipwayError(
            f"the image there says that its build id is {label}, and the tag is that of "
            f"{inputs.build_id}",
            where=shared.uri,
            cure="Somebody put another image under this tag: remove it there and run this again.",
        )
    reference = image_reference(context.matrix, image, inputs.build_id)
    engine.tag_image(context.engine, image_id, reference)
    size = int(facts["Size"])
    seconds = time.monotonic() - started
    built = BuildRecord(inputs.build_id, inputs.as_json(), reference, image_id, size, seconds)
    context.on_event(Event("done", task, text=f"{human_bytes(size)}, from {shared.by_digest}"))
    return ImageRecord(built=built)
