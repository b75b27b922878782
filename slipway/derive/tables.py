"""The matrix for people and machines: a table, one cell with everything derived, CI jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from slipway.core import UsageError
from slipway.matrix import (
    Addon,
    Base,
    Image,
    Matrix,
    Reference,
    Registry,
    explain_image,
    image_uri,
    is_public,
    past_support,
    repository_name,
    tag_stem,
)

MOST_JOBS = 256
"""Jobs that one matrix of a GitHub workflow may have (GitHub Actions documentation, limits)."""


def table_rows(images: Sequence[Image], on: date | None = None) -> list[tuple[str, ...]]:
    """The table of images, headers first.

    The last column is the date on which patches of the base end; with a day, what that means then.
    """
    packages = _packages(images)
    return [
        ("image", "torch", "python", "cuda", "os", *packages, "end of patch"),
        *(
            (
                image.name,
                image.torch or "-",
                image.base.facts.python,
                _cuda(image.base),
                _os(image.base),
                *(_short(image.addon(name)) for name in packages),
                _support(image.base, on),
            )
            for image in images
        ),
    ]


def _packages(images: Sequence[Image]) -> list[str]:
    """The add-ons of one version, those first that some group varies over."""
    varied = {axis.addon for image in images for axis in image.axes}
    names = {
        addon.name: addon.name not in varied
        for image in images
        for addon in image.addons
        if addon.kind == "package"
    }
    return sorted(names, key=names.__getitem__)


def markdown_table(images: Sequence[Image]) -> str:
    """The table of docs/images.md: the same on every day."""
    headers, *rows = table_rows(images)
    lines = [headers, ("---",) * len(headers), *((f"`{row[0]}`", *row[1:]) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def describe_image(matrix: Matrix, image: Image, on: date, region: str = "") -> dict[str, Any]:
    """`explain` plus all that a person wants to know: reasons, names, where the base can be had.

    With `region` only there. Raises UsageError where the base is not in it.
    """
    base = image.base
    return {
        **explain_image(image),
        "group": image.group,
        "because": {addon.name: addon.because for addon in image.addons},
        "repository": repository_name(image, matrix.repository_prefix),
        "tag": f"{tag_stem(image)}-<build id>",
        "aliases": list(image.aliases),
        "size_budget_mb": image.size_budget_mb,
        "cuda_mismatch": base.cuda_mismatch,
        "moves": dict(base.moves),
        "unverified": dict(base.unverified),
        "end_of_patch": base.end_of_patch.isoformat() if base.end_of_patch else None,
        "support": past_support(base, on),
        "base_uris": _uris(base.registry, base.repository, base.tag, region),
    }


def describe_reference(reference: Reference, region: str = "") -> dict[str, Any]:
    """An upstream image that is only pointed to; `region` as in `describe_image`."""
    return {
        "name": reference.name,
        "because": reference.because,
        "uris": _uris(reference.registry, reference.repository, reference.tag, region),
    }


def ci_jobs(images: Sequence[Image]) -> dict[str, list[dict[str, str]]]:
    """A CI matrix: one job an image. Raises UsageError above what one workflow matrix may hold."""
    if len(images) > MOST_JOBS:
        groups = Counter(image.group for image in images)
        sizes = ", ".join(f"{group} {count}" for group, count in groups.most_common())
        raise UsageError(
            f"{len(images)} images are more than the {MOST_JOBS} jobs of one CI matrix",
            cure=f"make one matrix a group, with globs over its names; groups: {sizes}",
        )
    return {
        "include": [
            {
                "image": image.name,
                "group": image.group,
                "base": image.base.name,
                "platform": image.platform,
                "device": image.base.facts.device,
                "architecture": image.base.facts.architecture,
                "repository": image.repository,
            }
            for image in images
        ]
    }


def _uris(registry: Registry | None, name: str, tag: str, region: str = "") -> Mapping[str, str]:
    """Where a reference can be had: "public" where there is a mirror, then every region."""
    if registry is None:
        return {}
    if region and registry.host is None:
        return {region: image_uri(registry, region, name, tag).reference}
    if registry.host is not None:
        return {"everywhere": image_uri(registry, None, name, tag).reference}
    regions = sorted(registry.accounts)
    places: list[str | None] = [None, *regions] if is_public(registry, name) else [*regions]
    return {where or "public": image_uri(registry, where, name, tag).reference for where in places}


def _support(base: Base, on: date | None) -> str:
    if base.end_of_patch is None:
        return "-"
    over = past_support(base, on) if on else None
    return over or base.end_of_patch.isoformat()


def _os(base: Base) -> str:
    facts = base.facts
    return facts.os if facts.architecture == "amd64" else f"{facts.os} {facts.architecture}"


def _cuda(base: Base) -> str:
    """The toolkit's version, as in the base's tag; torch's own where it was built for another."""
    facts = base.facts
    if facts.cuda is None:
        return facts.torch_cuda or "cpu"
    differs = facts.torch_cuda and facts.torch_cuda != facts.cuda
    return f"{facts.cuda} (torch {facts.torch_cuda})" if differs else facts.cuda


def _short(addon: Addon | None) -> str:
    return f"{addon.version or 'unknown'} ({addon.action})" if addon else "-"
