"""The repositories of our images in a target, made with what their tags need."""

from __future__ import annotations

from slipway import registry
from slipway.core import Event, OnEvent
from slipway.matrix import Matrix, repository_name
from slipway.pipeline.settings import PullPermissions
from slipway.registry import Target


def prepare_image_repository(
    target: Target, matrix: Matrix, path: str, sharing: PullPermissions, on_event: OnEvent
) -> None:
    """Have the target have a repository in which builds stay and the aliases of its images move.

    What could not be set up there is a notice.
    """
    prefix = matrix.repository_prefix
    members = [image for image in matrix.images if repository_name(image, prefix) == path]
    prepared = registry.prepare_repository(
        target,
        path,
        consumers=sharing.consumers,
        sagemaker=sharing.sagemaker,
        alias_patterns=registry.alias_patterns([a for image in members for a in image.aliases]),
    )
    for warning in prepared.warnings if prepared else ():
        on_event(Event("notice", f"repository {target.host}/{path}", text=warning))
