"""The second tag of a pushed build, with a SOCI index: where its zTOCs may come from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import registry, soci
from slipway.core import CredentialsFor, OnEvent, Project, UsageError, human_bytes
from slipway.matrix import Image, Matrix, image_tag, image_uri, repository_name
from slipway.pipeline.image_run import ImageRun, StageResult

if TYPE_CHECKING:
    from slipway.registry import Target


@dataclass(frozen=True)
class SociRequest:
    """A build that `target` has, whose base is of `region`. `layers`: those at hand, as files."""

    matrix: Matrix
    target: Target
    region: str | None
    layers: Mapping[str, Path] = field(default_factory=dict)


def soci_stage(
    project: Project,
    run: ImageRun,
    request: SociRequest,
    credentials: CredentialsFor,
    on_event: OnEvent,
) -> StageResult:
    """Have the build's second tag in the target unless it is there already."""
    image = run.image
    path = repository_name(image, request.matrix.repository_prefix)
    tag = image_tag(image, run.built.build_id)
    with contextlib.ExitStack() as stack:

        def client(host: str) -> registry.RegistryClient:
            opened = registry.RegistryClient(host, credentials, on_event=on_event)
            return stack.enter_context(opened)

        published = None
        if base := _base_tag(image, request.region):
            host, base_path, base_tag = base
            at = registry.Repository(client(host), base_path)
            published = soci.PublishedIndex(at, f"{base_tag}{soci.SUFFIX}")
        result = soci.put_soci_tag(
            registry.Repository(client(request.target.host), path),
            tag,
            soci.ZtocSources(project.cache / "ztoc", request.layers, published),
            on_event,
        )
    if result is None:
        return StageResult("soci", False, 0.0, "no layer is large enough for an index")
    done = f"{result.indexed} layers indexed, {result.made} of them read now"
    detail = "" if result.already else f" ({done}, {human_bytes(result.sent)} sent)"
    return StageResult(
        "soci", not result.already, result.seconds, f"{result.uri}@{result.digest}{detail}"
    )


def _base_tag(image: Image, region: str | None) -> tuple[str, str, str] | None:
    """Host, repository and tag of the base; None where it is in no registry that we know."""
    base = image.base
    if base.registry is None:
        return None
    try:
        uri = image_uri(base.registry, region, base.repository, base.tag)
    except UsageError:  # it is taken from elsewhere, by --base-from
        return None
    path, _, tag = uri.reference.removeprefix(f"{uri.host}/").rpartition(":")
    return uri.host, path, tag
