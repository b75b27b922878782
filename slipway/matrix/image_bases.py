"""Images of the matrix as bases of others: what such a base is, and in which order they come."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from slipway.core import did_you_mean
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.groups import expand_images
from slipway.matrix.image_tags import repository_name, tag_stem
from slipway.matrix.model import Base, Image
from slipway.matrix.yaml_file import Problem


def expand_all(source: MatrixEntries, bases: dict[str, Base]) -> dict[str, Image]:
    """Every image by name; `bases` gets those that are images.

    Groups are expanded again with each base that came of the round before, until none comes. What
    is wrong is what the last round says; a base whose image never comes is wrong itself.
    """
    problems, broken = list(source.problems), set(source.broken["images"])
    while True:
        source.problems, source.broken["images"] = list(problems), set(broken)
        images = expand_images(source, bases)
        made = {
            name: _image_base(source, name, images[entry.image])
            for name, entry in source.image_bases.items()
            if name not in bases and entry.image in images
        }
        if not made:
            break
        bases |= made
    _never_made(source, bases, images)
    return images


def _never_made(source: MatrixEntries, bases: dict[str, Base], images: dict[str, Image]) -> None:
    whole = not any(source.broken[section] for section in ("bases", "addons", "images"))
    for name, entry in source.image_bases.items():
        path = ("bases", name, "image")
        known = bases.get(name)
        if known is not None and known.image is None:
            what = f"{name} is a base already: of a series, by its flavour and device"
            source.problems.append(Problem(path[:2], what, "choose another name"))
        elif known is None and whole:
            what = f"no image {entry.image!r} to stand on{did_you_mean(entry.image, images)}"
            cure = "name an image that `images` makes, and that does not stand on this one"
            source.problems.append(Problem(path, what, cure))


def _image_base(source: MatrixEntries, name: str, image: Image) -> Base:
    """The base that an image is: what it stands on, with what it adds."""
    below = image.base
    added = {addon.name: addon.version for addon in image.addons if addon.kind == "package"}
    return Base(
        name=name,
        registry=None,
        repository=repository_name(image, source.head.repository_prefix if source.head else ""),
        tag=tag_stem(image),
        grammar="image",
        family=replace(below.family, workdir=image.workdir, user=image.user),
        flavour=below.flavour,
        facts=below.facts,
        carries=MappingProxyType({**below.carries, **added}),
        end_of_patch=below.end_of_patch,
        cuda_mismatch=below.cuda_mismatch,
        moves=below.moves,
        series=name,
        image=image,
    )
