"""The first descent of a build: bases, by which reference they are known, and in the engine."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType

from slipway import engine, local_base, registry, wheels
from slipway.core import Event, SlipwayError
from slipway.matrix import IMAGE_REGISTRY, LOCAL_REGISTRY, Base, Image, image_uri
from slipway.pipeline.build_requests import foreign_architecture
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import image_reference
from slipway.pipeline.targets import shared_base_place, take_shared_base
from slipway.records import base_lock_key


def base_reference(context: PipelineContext, base: Base) -> str:
    """Where the base is, with its digest where that is recorded."""
    if base.image is not None:
        build_id = context.checkout.build_id_of(base.image)
        return f"{IMAGE_REGISTRY}/{image_reference(context.matrix, base.image, build_id)}"
    if base.registry is None:
        return f"{LOCAL_REGISTRY}/{base.repository}:{base.tag}"
    lock = context.locks.bases.get(base.name)
    digest = lock.digest if lock else None
    return image_uri(base.registry, context.region, base.repository, base.tag, digest).reference


class BaseImages:
    """The bases of one run. Each is brought into the engine once, by whoever needs it first.

    Any thread may ask. A base that could not be had fails each image that stands on it with the
    same error, and is not tried again.
    """

    def __init__(self, context: PipelineContext) -> None:
        self._context = context
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._references: dict[str, str] = {}
        self._failures: dict[str, SlipwayError] = {}
        self._packages: dict[str, Mapping[str, str] | None] = {}

    def ensure(self, base: Base) -> str:
        """Have the base in the engine; gives its reference there."""
        with self._lock:
            lock = self._locks[base.name]
        with lock:
            if failure := self._failures.get(base.name):
                raise failure
            if base.name not in self._references:
                try:
                    self._references[base.name] = self._bring(base)
                except SlipwayError as error:
                    self._failures[base.name] = error
                    raise
            return self._references[base.name]

    def packages(self, base: Base) -> Mapping[str, str] | None:
        """The Python distributions of a base that the engine has: from the lock, else from itself.

        For a base of our own the lock has what we put into it, and not all that is there.
        """
        lock = self._context.locks.bases.get(base.name)
        if base.registry and lock and lock.packages is not None:
            return lock.packages
        with self._lock:
            lock_of_base = self._locks[f"packages of {base.name}"]
        with lock_of_base:
            if base.name not in self._packages:
                self._packages[base.name] = wheels.read_packages(
                    self._context.engine, self.ensure(base), base.family.python
                )
            return self._packages[base.name]

    def _bring(self, base: Base) -> str:
        context = self._context
        architecture = base.facts.architecture
        if not engine.runs_architecture(context.engine, architecture):
            raise engine.EngineError(
                f"{base.name} is for {architecture}, and this engine is for "
                f"{context.engine.architecture} and runs nothing else",
                where=context.engine.url,
                cure=f"Use the engine of a machine with {architecture} processors (DOCKER_HOST, or "
                "a context of Docker), install emulation there (qemu-user-static with "
                "binfmt-support, as packages of Debian), or build without an engine: --no-engine.",
            )
        if base.image is not None:
            return self._tag_image(base, base.image)
        if base.registry is None:
            lock = context.locks.python.get(base_lock_key(base))
            recipe = local_base.local_base_id(context.project, base, lock)
            take_shared_base(context, base, recipe)
            return local_base.ensure_local_base(
                context.project,
                context.engine,
                base,
                lock,
                context.on_event,
                context.credentials,
            )
        reference = base_reference(context, base)
        if engine.find_image_id(context.engine, reference) is None:
            engine.pull_image(
                context.engine,
                reference,
                credentials=context.credentials,
                on_event=context.on_event,
                architecture=foreign_architecture(context.engine, base),
            )
        actual = engine.inspect_image(context.engine, reference).get("Architecture")
        if actual != architecture:
            raise SlipwayError(
                f"this is an image for {actual}, and the facts of {base.name} say {architecture}",
                where=reference,
                cure="Correct `architecture` or the tag in versions.yaml; where the engine has the "
                "tag for another architecture, remove it there.",
            )
        return reference

    def _tag_image(self, base: Base, image: Image) -> str:
        """The image that a base is, as FROM takes it: by its build, so that no other is meant."""
        context = self._context
        reference = base_reference(context, base)
        own = reference.removeprefix(f"{IMAGE_REGISTRY}/")
        if engine.find_image_id(context.engine, own) is None:
            raise SlipwayError(
                f"{image.name}, which {base.name} is, could not be built",
                cure=f"Build that first: ./inv build {image.name}",
            )
        engine.tag_image(context.engine, own, reference)
        return reference


class BaseBlobs:
    """The layers of a base as its registry has them, while a push may need them.

    A base that Slipway makes may lie in the target, by its `recipe`.
    """

    def __init__(self, context: PipelineContext, base: Base, recipe: str = "") -> None:
        self._context, self._base, self._recipe = context, base, recipe
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> BaseBlobs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def find(self) -> Mapping[str, registry.RegistryBlob]:
        """Compressed layers by the digests of their tars; none where the registry cannot be asked:
        they are then compressed from the engine's disk."""
        place = self._place()
        if place is None:
            return {}
        host, path, tag, digest = place
        try:
            client = self._stack.enter_context(
                registry.RegistryClient(host, self._context.credentials)
            )
            manifest = client.image(path, digest or tag, architecture=self._base.facts.architecture)
            diff_ids = client.config(path, manifest)["rootfs"]["diff_ids"]
        except registry.RegistryError as error:
            missing = (registry.ImageMissingError, registry.RepositoryMissingError)
            if self._base.registry is None and isinstance(error, missing):
                return {}  # nobody has put it there yet
            text = f"the base's layers are compressed anew: {error}"
            self._context.on_event(Event("notice", f"base {self._base.name}", text=text))
            return {}
        at = registry.Repository(client, path)
        return {
            diff_id: registry.RegistryBlob(at, layer["digest"], layer["size"])
            for diff_id, layer in zip(diff_ids, manifest.json()["layers"], strict=True)
            if str(layer["mediaType"]).endswith("gzip")
        }

    def _place(self) -> tuple[str, str, str, str] | None:
        """Host, repository, tag and digest of the base; None where it is in no registry."""
        context, base = self._context, self._base
        if base.registry is None:
            if context.target is None or not self._recipe or base.image is not None:
                return None
            return context.target.host, *shared_base_place(context.matrix, base, self._recipe), ""
        host, _, rest = base_reference(context, base).partition("/")
        tagged, _, digest = rest.partition("@")
        path, _, tag = tagged.rpartition(":")
        return host, path, tag, digest
