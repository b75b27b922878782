"""One build of a small image, as several builders make it: each with an engine, or with none.

What a builder does is what `ship` does: the base into the engine, the layers on top of it, the push
by our own client, the .sqsh.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slipway.append import AppendedBlobs, AppendRequest, append_image, deliver_appended
from slipway.core import OnEvent, Project, anonymous, silent
from slipway.engine import BuildRequest, ContextFile, Engine, pull_image
from slipway.inventory import open_layered_image
from slipway.matrix import Image, load_matrix, repository_name
from slipway.pipeline.appended import EngineBase, OwnLayers, load_appended
from slipway.pipeline.appended.ran_steps import RanSteps, ran_step_keys
from slipway.pipeline.base_images import BaseBlobs, base_reference
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.targets import keep_shared_base, take_shared_base
from slipway.registry import (
    ImagePacker,
    RegistryClient,
    Repository,
    Target,
    digest_of,
    push_image,
)
from slipway.registry.manifests import schema2_manifest
from slipway.sqsh import ExportRequest, export_blobs, export_image, image_packing
from slipway.squashfs import SqshOptions, layer_cache
from tests.support.registry.images import put_blob
from tests.support.tiny import rootfs_tar
from tests.support.wheels import make_wheel

CHECKOUT = Path(__file__).parents[2]
MATRIX = load_matrix(CHECKOUT / "versions.yaml")
BUILD_ID = "1" * 64
BASE, PATH, TAG = "one/base", "one/image", "one-111111111111"
DOCKERFILE = """\
ARG BASE_REGISTRY
FROM ${BASE_REGISTRY}/one/base:1

# --- pkg 1.0 ---
RUN --mount=type=bind,source=python/pkg,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/install_addons.py", "pkg"]
ENV PKG=here

# --- launcher ---
COPY launcher/ /
ENTRYPOINT ["/usr/local/bin/launch"]
CMD ["/bin/sh"]
"""

STEPS = """\
# --- source-x ---
FROM ${BASE_REGISTRY}/one/base:1 AS source-x
RUN ["/bin/sh", "-c", "mkdir -p /opt/x && cat /proc/sys/kernel/random/uuid > /opt/x/id"]

FROM ${BASE_REGISTRY}/one/base:1

# --- tools:system ---
RUN ["/bin/sh", "-c", "cat /proc/sys/kernel/random/uuid > /etc/id"]

# --- x:/opt/x ---
COPY --from=source-x --chown=0:0 /opt/x/ /opt/x/
"""


@dataclass(frozen=True)
class OneBuild:
    """An image on a base that a registry has, and all that it is made of."""

    image: Image
    digest: str  # of the base
    request: BuildRequest
    recipe: str = ""  # of a base that Slipway makes
    layer_keys: Mapping[str, str] = field(default_factory=dict)  # of steps that run in the base

    def with_steps(self) -> OneBuild:
        """The same with two steps that run in the base, and never leave the same."""
        dockerfile = DOCKERFILE.replace("FROM ${BASE_REGISTRY}/one/base:1\n", STEPS)
        own = {name: os.urandom(16).hex() for name in ("tools:system", "x:/opt/x")}
        request = dataclasses.replace(
            self.request, dockerfile=dockerfile, build_args={"BASE_REGISTRY": self.host}
        )
        return dataclasses.replace(self, request=request, layer_keys=own)

    @property
    def host(self) -> str:
        """Where the base is."""
        assert self.image.base.registry
        return str(self.image.base.registry.host)

    def on_own_base(self, recipe: str) -> OneBuild:
        """The same on a base that lies in no registry by itself."""
        image = next(image for image in MATRIX.images if image.base.registry is None)
        return dataclasses.replace(self, image=image, recipe=recipe)


@dataclass(frozen=True)
class BuilderResult:
    """What one builder has left: the image in its engine, in the registry, and its .sqsh."""

    image_id: str
    digest: str
    sqsh: str
    already: bool


def put_base(client: RegistryClient) -> str:
    """A base with a shell, each folder of it named in its layer; gives its digest."""
    tar = rootfs_tar(whole=True)
    layer = gzip.compress(tar, 1, mtime=0)
    config = (
        b'{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z",'
        b'"config":{"Env":["PATH=/usr/bin:/bin"]},"history":[{"created_by":"the base"}],'
        b'"rootfs":{"type":"layers","diff_ids":["%s"]}}' % digest_of(tar).encode()
    )
    for blob in (layer, config):
        put_blob(client, BASE, blob)
    manifest = schema2_manifest((digest_of(config), len(config)), [(digest_of(layer), len(layer))])
    client.put_manifest(BASE, "1", manifest)
    return manifest.digest


def make_build(host: str, digest: str, folder: Path) -> OneBuild:
    """The image on the base `digest` of a registry; its wheels are made in `folder`."""
    image = next(image for image in MATRIX.images if image.base.registry)
    assert image.base.registry
    registry = dataclasses.replace(image.base.registry, host=host, login=False)
    base = dataclasses.replace(image.base, registry=registry, repository=BASE, tag="1")
    noise = b"".join(hashlib.sha256(bytes([at % 256, at // 256])).digest() for at in range(9000))
    wheels = [
        make_wheel(folder, "pkg", {"pkg/__init__.py": b"made = 1\n"}, requires=["large"]),
        make_wheel(folder, "large", {"large.bin": noise}),
    ]
    pins = "".join(
        f"{wheel.name.partition('-')[0]}==1.0 "
        f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        for wheel in wheels
    )
    request = BuildRequest(
        dockerfile=DOCKERFILE,
        context=(
            *(ContextFile(f"python/pkg/wheels/{wheel.name}", wheel) for wheel in wheels),
            ContextFile("python/pkg/pkg.txt", f"# asked: pkg\n{pins}".encode()),
            ContextFile(
                "python/pkg/install_addons.py", CHECKOUT / "images/context/install_addons.py"
            ),
            ContextFile("launcher/usr/local/bin/launch", b'#!/bin/sh\nexec "$@"\n', 0o755),
        ),
        tags=(f"{PATH}:{TAG}",),
        build_args={},
        labels={"io.slipway.build-id": BUILD_ID},
        secrets={},
    )
    return OneBuild(dataclasses.replace(image, base=base), digest, request)


@dataclass(frozen=True)
class Builder:
    """One machine: its engine, where it has one, and what it keeps for itself below `state`."""

    state: Path
    host: str
    engine: Engine | None = None

    @property
    def project(self) -> Project:
        """The checkout with this builder's own state."""
        return Project(CHECKOUT, self.state)

    def ship(self, build: OneBuild, path: str = PATH, on_event: OnEvent = silent) -> BuilderResult:
        """Build, push under the build's tag, and export."""
        if self.engine is None:
            return self._without_engine(build, path)
        context, base = self.context(build, on_event), build.image.base
        reference = base_reference(context, base)
        if base.registry:
            pull_image(self.engine, reference, credentials=anonymous, on_event=silent)
        else:
            take_shared_base(context, base, build.recipe)
        image_id = load_appended(
            context,
            build.image,
            EngineBase(base, reference, reference, {}),
            build.request,
            build.layer_keys,
        )
        assert context.target
        with BaseBlobs(context, base, build.recipe) as blobs:
            pushed = push_image(
                self.engine,
                image_id,
                context.target,
                path,
                TAG,
                credentials=anonymous,
                on_event=on_event,
                movable=False,
                packer=ImagePacker(
                    self.project.packed, blobs.find, OwnLayers.of(self.project).transfers
                ),
            )
        self.steps(build, self._diff_ids(build)).put(context.target)
        if not base.registry:
            keep_shared_base(context, base, build.recipe, context.target, pushed.digest)
        sidecar = export_image(
            self.engine, image_id, self._export(build), cache=layer_cache(self.project)
        )
        return BuilderResult(image_id, pushed.digest, sidecar.digest, pushed.already)

    def steps(self, build: OneBuild, diff_ids: Sequence[str]) -> RanSteps:
        """The steps of the image that run something in its base."""
        dockerfile = build.request.dockerfile
        keys = ran_step_keys(dockerfile, build.layer_keys, diff_ids)
        matrix = self.context(build).matrix
        path = repository_name(build.image, matrix.repository_prefix)
        return RanSteps(self.project, build.image.name, path, dockerfile, keys, anonymous, silent)

    def _diff_ids(self, build: OneBuild) -> list[str]:
        if not build.layer_keys:
            return []
        with self._base(build) as base:
            return list(base.config["rootfs"]["diff_ids"])

    def context(self, build: OneBuild, on_event: OnEvent = silent) -> PipelineContext:
        """What the pipeline's steps get."""
        locks = SimpleNamespace(
            bases={build.image.base.name: SimpleNamespace(digest=build.digest, packages={})}
        )
        matrix = dataclasses.replace(
            MATRIX, repository_prefix=f"one-{build.recipe[7:19] or 'none'}"
        )
        facts: dict[str, Any] = {"matrix": matrix, "locks": locks, "engine": self.engine}
        return PipelineContext(
            project=self.project,
            region=None,
            credentials=anonymous,
            on_event=on_event,
            target=Target("local", "local", self.host),
            **facts,
        )

    def _export(self, build: OneBuild) -> ExportRequest:
        packing = image_packing(self.project, build.image.name, SqshOptions())
        self.state.mkdir(parents=True, exist_ok=True)
        own = OwnLayers.of(self.project).archives
        return ExportRequest(self.state / "one.sqsh", BUILD_ID, packing, True, own)

    def _without_engine(self, build: OneBuild, path: str) -> BuilderResult:
        with self._base(build) as base, RegistryClient(self.host, anonymous) as client:
            steps = self.steps(build, base.config["rootfs"]["diff_ids"])
            image = append_image(
                base,
                AppendRequest(
                    dockerfile=build.request.dockerfile,
                    context=build.request.context,
                    labels=build.request.labels,
                    python=build.image.base.facts.python,
                    cache=self.project.cache,
                    packages={},
                    ran=steps.find(Target("local", "local", self.host)),
                ),
                "build",
            )
            pushed = deliver_appended(image, Repository(client, path), TAG)
            sidecar = export_blobs(
                AppendedBlobs(image),
                image.manifest.digest,
                self._export(build),
                cache=layer_cache(self.project),
            )
        return BuilderResult(image.config_digest, pushed.digest, sidecar.digest, pushed.already)

    def _base(self, build: OneBuild) -> Any:
        reference = f"{self.host}/{BASE}@{build.digest}"
        return open_layered_image(reference, anonymous)
