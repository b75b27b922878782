"""Groups of images -> images: the cells of each group, named, less what it excludes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from string import Formatter

from packaging.version import Version

from slipway.core import did_you_mean
from slipway.matrix.addons import decide_addons, is_for, read_tool
from slipway.matrix.consistency import waits
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.model import AXIS, Addon, Base, Image, Platform
from slipway.matrix.schema import ExcludeEntry, GroupEntry
from slipway.matrix.yaml_file import Path, Problem

_FIELDS = ("series", "minor", "torch", "flavour", "device", "platform", "deepspeed")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)


def expand_images(source: MatrixEntries, bases: Mapping[str, Base]) -> dict[str, Image]:
    """Every image by name. What does not fit is added to the source's problems."""
    images: dict[str, Image] = {}
    aliases: dict[tuple[str, str], str] = {}
    for name in source.images:
        for image in _group(source, name, bases):
            path: Path = ("images", name)
            if image.name in images:
                what = f"{name} makes image {image.name!r}, which {images[image.name].group} makes"
                cure = f"make `name` tell them apart; it may use {_braced()}"
                source.problems.append(Problem((*path, "name"), what, cure))
                continue
            images[image.name] = image
            for alias in image.aliases:
                holder = aliases.setdefault((image.repository, alias), image.name)
                if holder != image.name:
                    what = f"alias {alias!r} of {image.name} is {holder}'s in {image.repository!r}"
                    cure = "an alias is one image's: give it to one DeepSpeed version, or reword it"
                    source.problems.append(Problem((*path, "aliases"), what, cure))
    complete = not any(source.broken[section] for section in ("bases", "addons", "images"))
    if source.head and complete and source.head.default not in images:
        default = source.head.default
        what = f"no image {default!r} to be the default{did_you_mean(default, images)}"
        source.problems.append(Problem(("default",), what, "name one that `images` makes"))
    return images


def _group(source: MatrixEntries, name: str, bases: Mapping[str, Base]) -> list[Image]:
    group, path = source.images[name], ("images", name)
    if not _templates_hold(source, path, group):
        source.broken["images"].add(name)
        return []
    chosen = _chosen(source, path, group, bases)
    used: set[int] = set()
    images: list[Image] = []
    for base in chosen:
        for value in group.deepspeed:
            for platform in group.platforms:
                hits = [
                    index
                    for index, rule in enumerate(group.exclude)
                    if _excluded(rule, base, value, platform)
                ]
                used.update(hits)
                if not hits:
                    images += _image(source, name, base, value, platform)
    if not source.broken["bases"]:
        for index in sorted(set(range(len(group.exclude))) - used):
            what = f"this exclude of {name} matches no image"
            cure = "remove it, or correct what it matches"
            source.problems.append(Problem((*path, "exclude", index), what, cure))
    return images


def _chosen(
    source: MatrixEntries, path: Path, group: GroupEntry, bases: Mapping[str, Base]
) -> list[Base]:
    """The bases that a group's globs match, each once, in the file's order."""
    waiting = {series for series, entry in source.bases.items() if waits(entry)}
    perhaps = [
        f"{series}-{flavour}-{device}"
        for series in source.broken["bases"] | waiting
        for flavour in ("sagemaker", "ec2")
        for device in ("gpu", "cpu")
    ]
    for index, glob in enumerate(group.bases):
        if not any(fnmatchcase(base, glob) for base in (*bases, *perhaps)):
            what = f"{glob!r} matches no base{did_you_mean(glob, bases)}"
            cure = "bases are named <series>-<sagemaker|ec2>-<gpu|cpu>"
            source.problems.append(Problem((*path, "bases", index), what, cure))
    return [
        base for name, base in bases.items() if any(fnmatchcase(name, glob) for glob in group.bases)
    ]


def _excluded(rule: ExcludeEntry, base: Base, deepspeed: str, platform: Platform) -> bool:
    return (
        fnmatchcase(base.name, rule.bases)
        and rule.deepspeed in (None, deepspeed)
        and rule.platform in (None, platform)
    )


def _image(
    source: MatrixEntries, group: str, base: Base, deepspeed: str, platform: Platform
) -> Iterator[Image]:
    entry, path = source.images[group], ("images", group)
    version = None if deepspeed == "none" else deepspeed
    if version is None and AXIS in base.carries:
        what = f"{base.name} carries DeepSpeed {base.carries[AXIS]}, so `none` cannot be true of it"
        cure = "list the version that it carries, or exclude the base"
        source.problems.append(Problem((*path, "deepspeed"), what, cure))
        return
    if version is not None and AXIS not in source.names("addons"):
        what = f"{group} lists DeepSpeed versions, but `addons` has no {AXIS}"
        source.problems.append(Problem((*path, "deepspeed"), what, "add it, or list [none]"))
        return
    values = {
        "series": base.series,
        "minor": ".".join(base.facts.torch.split(".")[:2]),
        "torch": base.facts.torch,
        "flavour": base.flavour,
        "device": base.facts.device,
        "platform": platform,
        "deepspeed": deepspeed,
    }
    name = entry.name.format(**values)
    aliases = tuple(
        template.format(**values)
        for template, for_version in entry.aliases.items()
        if for_version in ("all", deepspeed)
    )
    for key, text, legal in [("name", name, _NAME), *(("aliases", a, _ALIAS) for a in aliases)]:
        if not legal.fullmatch(text):
            what = f"{text!r} cannot be {'an image name' if key == 'name' else 'a tag'}"
            cure = "use lower-case letters, digits, dots and dashes"
            source.problems.append(Problem((*path, key), what, cure))
            return
    decided = (
        decide_addons(addon, settings, base, platform, version)
        for addon, settings in source.addons.items()
        if is_for(settings.only, name, group, base)
    )
    addons = [addon for addon in decided if addon is not None]
    axes = {name for name, settings in source.addons.items() if settings.version == "axis"}
    for addon in addons:
        if addon.name in axes - {AXIS}:
            continue  # reported, and so no version of it means anything
        _not_lowered(source, path, entry, name, base, addon)
    yield Image(
        name=name,
        group=group,
        base=base,
        platform=platform,
        addons=(
            *addons,
            *(read_tool(key, settings) for key, settings in source.tools.items()),
        ),
        size_budget_mb=entry.size_budget_mb,
        aliases=aliases,
        repository=entry.repository,
    )


def _not_lowered(
    source: MatrixEntries, path: Path, group: GroupEntry, image: str, base: Base, addon: Addon
) -> None:
    """Versions are compared: an image with less than its base carries needs a reason."""
    has = base.carries.get(addon.name)
    if addon.action != "replace" or has is None or addon.version is None:
        return
    if Version(addon.version) >= Version(has):
        return
    if any(
        rule.addon == addon.name and fnmatchcase(base.name, rule.bases) for rule in group.downgrade
    ):
        return
    what = f"{image} would lower {addon.name} from {has}, which {base.name} carries, to"
    cure = f"exclude it, or say why: `downgrade: [{{addon: {addon.name}, because: ...}}]`"
    source.problems.append(Problem(path, f"{what} {addon.version}", cure))


def _templates_hold(source: MatrixEntries, path: Path, group: GroupEntry) -> bool:
    """Whether `name` and `aliases` can be filled in; reports where not."""
    places = [((*path, "name"), group.name), *(((*path, "aliases", a), a) for a in group.aliases)]
    before = len(source.problems)
    for place, template in places:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            source.problems.append(Problem(place, f"{template!r}: {error}", f"as {_braced()}"))
            continue
        for _, key, spec, conversion in parts:
            if key is not None and (key not in _FIELDS or spec or conversion):
                what = f"{template!r} uses {{{key}}}{did_you_mean(key, _FIELDS)}"
                source.problems.append(Problem(place, what, f"there are {_braced()}"))
    for template, version in group.aliases.items():
        if version != "all" and version not in group.deepspeed:
            what = f"alias {template!r} is for DeepSpeed {version}, which this group does not make"
            cure = f"one of {', '.join(group.deepspeed)}, or `all`"
            source.problems.append(Problem((*path, "aliases", template), what, cure))
    return len(source.problems) == before


def _braced() -> str:
    return ", ".join(f"{{{field}}}" for field in _FIELDS)
