"""The second descent of a build: an image's Dockerfile, and its context of wheels, tools, launcher.

What is not in the cache is fetched or made here, so that the build itself needs no network.
"""

from __future__ import annotations

from slipway import engine, wheels
from slipway.core import Project
from slipway.derive import BuildInputs, added_files, launcher_files
from slipway.matrix import Base, Image
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import BUILD_ID_LABEL, image_reference


def launcher_context(project: Project, python: str) -> tuple[engine.ContextFile, ...]:
    """The launcher's files as they stand in an image whose interpreter is `python`."""
    return tuple(
        engine.ContextFile(f"launcher/{file.target}", file.source, file.mode)
        for file in launcher_files(project, python)
    )


def files_context(project: Project, image: Image) -> tuple[engine.ContextFile, ...]:
    """The files of the repository that an image's add-ons bring."""
    return tuple(
        engine.ContextFile(file.context, file.source, file.mode)
        for file in added_files(project, image.own_addons)
    )


def foreign_architecture(machine: engine.Engine, base: Base) -> str:
    """The architecture of a base where it is not the engine's own, which need not be named."""
    architecture = base.facts.architecture
    return "" if architecture == machine.architecture else architecture


def build_request(
    context: PipelineContext, image: Image, inputs: BuildInputs, base: str
) -> engine.BuildRequest:
    """All that the engine needs to build `image` on `base`, a reference in the engine."""
    wheels_and_tools = wheels.make_image_context(
        wheels.ContextRequest(
            context.project, context.matrix, image, context.locks, context.engine, base
        ),
        context.on_event,
    )
    name = f"/{image.base.repository}:"
    arguments = {"BASE_REGISTRY": base.partition(name)[0]}
    if image.base.image is not None:  # of one build of it, and no other that has its name
        arguments["BASE_BUILD"] = base.partition(name)[2].removeprefix(image.base.tag)
    return engine.BuildRequest(
        dockerfile=context.checkout.dockerfile(image),
        context=(
            *wheels_and_tools,
            *files_context(context.project, image),
            *launcher_context(context.project, image.base.family.python),
        ),
        tags=(image_reference(context.matrix, image, inputs.build_id),),
        build_args=arguments,
        labels={BUILD_ID_LABEL: inputs.build_id},
        secrets={},
        architecture=foreign_architecture(context.engine, image.base),
    )
