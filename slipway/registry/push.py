"""An image from the engine into a registry, under a tag that does not move, and proof of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from slipway.core import CredentialsFor, Event, OnEvent, SlipwayError
from slipway.engine import DamagedLayerError, Engine, EngineError, inspect_image
from slipway.registry.distribution import RegistryClient, Repository, RetryPolicy, deliver_blobs
from slipway.registry.ecr import STAGING, access_denied
from slipway.registry.engine_push import POLICY, deliver_image, renamed_archive, tagged_image
from slipway.registry.errors import (
    ImageMissingError,
    ImmutableTagError,
    ManifestError,
    NotAuthorisedError,
    RepositoryMissingError,
    ServerFaultError,
    immutable_tag_error,
)
from slipway.registry.manifests import SCHEMA2, Manifest, to_schema2
from slipway.registry.packed_image import ImagePacker, PackedImage
from slipway.registry.target import Target


@dataclass(frozen=True)
class PushResult:
    """What is in the registry now. `uri` is host/repository:tag, `size_bytes` compressed.

    `already`: the tag had this very image before. `rewritten`: the engine's OCI manifest was
    replaced by a Docker schema 2 one, so that the digest is not the engine's.
    """

    uri: str
    digest: str
    media_type: str
    size_bytes: int
    rewritten: bool
    already: bool
    seconds: float


def push_image(
    engine: Engine,
    local_reference: str,
    target: Target,
    repository: str,
    tag: str,
    *,
    credentials: CredentialsFor,
    on_event: OnEvent,
    movable: bool | None = None,
    policy: RetryPolicy = POLICY,
    packer: ImagePacker | None = None,
) -> PushResult:
    """Put an image of the engine under a tag of a registry, unless it is there already.

    What the registry then has is compared with what the engine has, and is a Docker schema 2
    manifest: SageMaker takes no other. An OCI image goes to a staging tag first (it expires by
    itself in repositories that we made) and only its rewritten manifest gets `tag`, so that this
    works where tags are immutable. `movable`: the tag may leave another image; None means only in
    the local registry, where nobody else relies on it. With a `packer` our own client sends what
    it packs; dockerd does where there is none, or where it cannot read the engine's disk.

    Raises ImmutableTagError where the tag is another image's, ManifestError where the result is not
    the image, the other RegistryErrors, and the engine's own errors.
    """
    started = time.monotonic()
    task = f"push {target.host}/{repository}:{tag}"
    image = LocalImage.of(engine, local_reference)
    on_event(Event("start", task))
    try:
        with RegistryClient(
            target.host,
            credentials,
            policy=policy,
            on_event=on_event,
            uploads=packer.folder / "uploads" if packer else None,
        ) as registry:
            way = _Way(engine, image, registry, target, repository, credentials, policy, packer)
            free = target.kind == "local" if movable is None else movable
            result = way.go(tag, renamed_archive(on_event, task), movable=free)
    except ImmutableTagError:
        on_event(Event("cached", task))  # whether that is a failure is the caller's to say
        raise
    except SlipwayError:
        on_event(Event("failed", task))
        raise
    on_event(Event("done", task, text="already there" if result.already else result.digest))
    return replace(result, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Way:
    """One image on its way into one repository."""

    engine: Engine
    image: LocalImage
    registry: RegistryClient
    target: Target
    repository: str
    credentials: CredentialsFor
    policy: RetryPolicy
    packer: ImagePacker | None

    def go(self, tag: str, on_event: OnEvent, *, movable: bool) -> PushResult:
        present = self._find(tag)
        if present is not None and self.image.is_behind(present):
            return self._result(tag, present, already=True)
        if self.image.schema2:
            self._may_take(tag, present, movable)
        packed = self._pack(tag, on_event)
        if packed is None and self.image.schema2:
            return self._direct(tag, on_event, None)
        final = packed.manifest if packed else self._staged(on_event)
        if present is not None and present.digest == final.digest:
            return self._result(tag, final, already=True)
        self._may_take(tag, present, movable)
        if packed:
            return self._direct(tag, on_event, packed)
        self._check(tag, final)  # before the tag names it
        self.registry.put_manifest(self.repository, tag, final)
        return self._result(tag, final)

    def _direct(self, tag: str, on_event: OnEvent, packed: PackedImage | None) -> PushResult:
        """Blobs and manifest under the tag itself: by our client, or by the engine."""
        try:
            if packed:
                self._deliver(tag, on_event, packed)
            final = packed.manifest if packed else self._send(tag, on_event)
        except ImmutableTagError:
            # Ours after all: another push was faster, or an answer of an earlier try was lost.
            present = self._find(tag)
            sent = packed.manifest.digest if packed else ""
            if present is None or not (present.digest == sent or self.image.is_behind(present)):
                raise
            return self._result(tag, present, already=True)
        if final.media_type != SCHEMA2:
            raise ManifestError(
                f"the engine sent a manifest of type {final.media_type}; SageMaker takes only "
                f"{SCHEMA2}",
                where=self.registry.name(self.repository, tag),
            )
        return self._result(tag, final)

    def _staged(self, on_event: OnEvent) -> Manifest:
        """The schema 2 manifest of an OCI image whose blobs are in the repository."""
        staging = f"{STAGING}{self.image.id.removeprefix('sha256:')[:32]}"
        manifest = self._find(staging)
        if manifest is None:  # else an earlier push came as far as this
            manifest = self._send(staging, on_event)
        if manifest.is_index:
            manifest = self.registry.image(
                self.repository,
                manifest.digest,
                os=self.image.os,
                architecture=self.image.architecture,
            )
        return to_schema2(manifest)

    def _pack(self, tag: str, on_event: OnEvent) -> PackedImage | None:
        """What our own client would send. None where there is nothing to send by it."""
        if self.packer is None:
            return None
        target = Repository(self.registry, self.repository)
        task = f"push {target.name(tag)}"
        try:
            return self.packer.pack(self.engine, self.image.id, target, task, on_event)
        except DamagedLayerError:
            raise  # the engine would try five times, for a minute, and say so then
        except EngineError as error:
            text = f"{error.what}: the engine pushes by itself"
            on_event(Event("notice", task, text=text))
            return None

    def _deliver(self, tag: str, on_event: OnEvent, packed: PackedImage) -> None:
        target = Repository(self.registry, self.repository)
        try:
            deliver_blobs(target, packed.blobs, f"push {target.name(tag)}", on_event)
            target.put_tagged(tag, packed.manifest)
        except NotAuthorisedError as error:
            raise access_denied(target.name(tag), error.what, self.target.account) from error

    def _send(self, tag: str, on_event: OnEvent) -> Manifest:
        name = self.registry.name(self.repository)
        with tagged_image(self.engine, self.image.id, name, tag) as reference:
            digest = deliver_image(
                self.engine,
                reference,
                self.target,
                credentials=self.credentials,
                on_event=on_event,
                policy=self.policy,
            )
        return self.registry.manifest(self.repository, digest)

    def _find(self, tag: str) -> Manifest | None:
        try:
            return self.registry.manifest(self.repository, tag)
        except ImageMissingError:
            return None
        except ServerFaultError:
            if self.registry.find_digest(self.repository, tag) is None:
                return None  # the registry cannot read what it has of the tag
            raise
        except RepositoryMissingError:
            if self.target.kind == "local":  # makes repositories by itself
                return None
            raise

    def _may_take(self, tag: str, present: Manifest | None, movable: bool) -> None:
        if present is not None and not movable:
            raise immutable_tag_error(self.registry.name(self.repository, tag), present.digest)

    def _result(self, tag: str, final: Manifest, *, already: bool = False) -> PushResult:
        """Check what the registry has, and tell it."""
        where = self._check(tag, final)
        digest = self.registry.head(self.repository, tag)
        if digest != final.digest:
            raise ManifestError(f"the tag names {digest}, not {final.digest}", where=where)
        return PushResult(
            uri=where,
            digest=final.digest,
            media_type=final.media_type,
            size_bytes=final.size,
            rewritten=not self.image.schema2,
            already=already,
            seconds=0.0,
        )

    def _check(self, tag: str, final: Manifest) -> str:
        where = self.registry.name(self.repository, tag)
        if not self.image.is_behind(final):
            config = self.registry.config(self.repository, final)
            self.image.check_layers(config, where)
        return where


@dataclass(frozen=True)
class LocalImage:
    """What tells an image of the engine.

    `id` is the digest of the configuration on graph drivers, and that of the manifest or index in
    the containerd store. `layers` are the digests of the uncompressed layers ("diff_ids").
    `schema2`: the engine is known to send a Docker schema 2 manifest.
    """

    id: str
    os: str
    architecture: str
    layers: tuple[str, ...]
    containerd: bool
    schema2: bool

    @classmethod
    def of(cls, engine: Engine, reference: str) -> LocalImage:
        """Describe an image. Raises EngineError where the engine does not have it."""
        inspection: Mapping[str, Any] = inspect_image(engine, reference)
        descriptor = inspection.get("Descriptor") or {}
        return cls(
            id=str(inspection["Id"]),
            os=str(inspection["Os"]),
            architecture=str(inspection["Architecture"]),
            layers=tuple(inspection["RootFS"].get("Layers") or ()),
            containerd=engine.containerd_store,
            # Graph drivers keep no manifests and always write schema 2 ones. The containerd store
            # sends what the build wrote, and engines before 28 do not say what that is.
            schema2=not engine.containerd_store or descriptor.get("mediaType") == SCHEMA2,
        )

    def is_behind(self, manifest: Manifest) -> bool:
        """Whether a schema 2 manifest is this image for certain: by what the id is made of."""
        if manifest.media_type != SCHEMA2:
            return False
        if self.containerd:
            return manifest.digest == self.id
        return bool(manifest.json()["config"]["digest"] == self.id)

    def check_layers(self, config: Mapping[str, Any], where: str) -> None:
        """For manifests that the id does not tell (rewritten ones): the same layers.

        Raises ManifestError for those of another image, and on graph drivers, whose ids do tell.
        """
        layers = tuple(config["rootfs"]["diff_ids"])
        if not self.containerd or layers != self.layers:
            raise ManifestError(
                f"the registry has an image with layers {', '.join(layers)}, not {self.id}",
                where=where,
            )
