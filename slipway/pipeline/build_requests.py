"""The second descent of a build: an image's Dockerfile, and its context of wheels, tools, launcher.

What is not in the cache is fetched or made here, so that the build itself needs no network.
"""

from __future__ import annotations

from slipway.core import Project
from slipway.derive import BuildInputs, launcher_files, render_dockerfile
from slipway.engine import BuildRequest, ContextFile
from slipway.matrix import Image, Matrix, image_tag, repository_name
from slipway.pipeline.context import PipelineContext
from slipway.wheels import ContextRequest, make_image_context

BUILD_ID_LABEL = "io.slipway.build-id"


def image_reference(matrix: Matrix, image: Image, build_id: str) -> str:
    """Repository and immutable tag of an image, without a registry host."""
    return f"{repository_name(image, matrix.repository_prefix)}:{image_tag(image, build_id)}"


def launcher_context(project: Project, python: str) -> tuple[ContextFile, ...]:
    """The launcher's files as they stand in an image whose interpreter is `python`."""
    return tuple(
        ContextFile(f"launcher/{file.target}", file.source, file.mode)
        for file in launcher_files(project, python)
    )


def build_request(
    context: PipelineContext, image: Image, inputs: BuildInputs, base: str
) -> BuildRequest:
    """All that the engine needs to build `image` on `base`, a reference in the engine."""
    tools = tuple(context.matrix.tools.values())
    wheels_and_tools = make_image_context(
        ContextRequest(context.project, context.matrix, image, context.locks, context.engine, base),
        context.on_event,
    )
    return BuildRequest(
        dockerfile=render_dockerfile(image, context.locks, tools, context.project.templates),
        context=(*wheels_and_tools, *launcher_context(context.project, image.base.family.python)),
        tags=(image_reference(context.matrix, image, inputs.build_id),),
        build_args={"BASE_REGISTRY": base.partition(f"/{image.base.repository}:")[0]},
        labels={BUILD_ID_LABEL: inputs.build_id},
        secrets={},
    )
