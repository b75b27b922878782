"""Groups of images -> images: the cells of each group, named, less what it excludes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from string import Formatter
from typing import get_args

from packaging.version import Version

from slipway.core import UsageError, did_you_mean
from slipway.matrix.addons import (
    AxisChoice,
    decide_addon,
    inherit_addon,
    is_for,
    read_tool,
)
from slipway.matrix.cells import (
    FIXED_AXES,
    NONE,
    PLAIN_FIELDS,
    Cell,
    axis_label,
    axis_value,
    cells_of,
)
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.image_tags import image_tag, parse_image_tag
from slipway.matrix.model import Addon, Base, Flavour, Image
from slipway.matrix.rules import check_system, check_together, waits
from slipway.matrix.schema import CellsEntry, GroupEntry
from slipway.matrix.yaml_file import Path, Problem

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)


def expand_images(source: MatrixEntries, bases: Mapping[str, Base]) -> dict[str, Image]:
    """Every image by name. What does not fit is added to the source's problems."""
    images: dict[str, Image] = {}
    aliases: dict[tuple[str, str], str] = {}
    for name, group in source.images.items():
        for image in _group(source, name, bases):
            path: Path = ("images", name)
            if image.name in images:
                what = f"{name} makes image {image.name!r}, which {images[image.name].group} makes"
                cure = f"make `name` tell them apart; it may use {_braced(group)}"
                source.problems.append(Problem((*path, "name"), what, cure))
                continue
            images[image.name] = image
            for alias in image.aliases:
                holder = aliases.setdefault((image.repository, alias), image.name)
                if holder != image.name:
                    what = f"alias {alias!r} of {image.name} is {holder}'s in {image.repository!r}"
                    cure = "an alias is one image's: give it to one version, or reword it"
                    source.problems.append(Problem((*path, "aliases"), what, cure))
    complete = not any(source.broken[section] for section in ("bases", "addons", "images"))
    if source.head and complete and source.head.default not in images:
        default = source.head.default
        what = f"no image {default!r} to be the default{did_you_mean(default, images)}"
        source.problems.append(Problem(("default",), what, "name one that `images` makes"))
    return images


def _group(source: MatrixEntries, name: str, bases: Mapping[str, Base]) -> list[Image]:
    group, path = source.images[name], ("images", name)
    if not (_axes_hold(source, path, group) and _templates_hold(source, path, group)):
        source.broken["images"].add(name)
        return []
    chosen = _chosen(source, path, group, bases)
    used: set[int] = set()
    lowered: set[int] = set()
    images: list[Image] = []
    for cell in cells_of(group.axes, chosen):
        hits = [i for i, rule in enumerate(group.exclude) if cell.is_meant(rule.conditions)]
        used.update(hits)
        if not hits:
            images += _image(source, name, cell, lowered)
    if not source.broken["bases"] and source.image_bases.keys() <= bases.keys():
        _all_used(source, (*path, "exclude"), group.exclude, used)
        _all_used(source, (*path, "downgrade"), group.downgrade, lowered)
    return images


def _all_used(
    source: MatrixEntries, path: Path, rules: Sequence[CellsEntry], used: set[int]
) -> None:
    _, name, key = path
    for index in sorted(set(range(len(rules))) - used):
        what = f"this {key} of {name} matches no image"
        source.problems.append(
            Problem((*path, index), what, "remove it, or correct what it matches")
        )


def _axes_hold(source: MatrixEntries, path: Path, group: GroupEntry) -> bool:
    """Whether every axis is one, and every rule speaks of axes that the group has."""
    before = len(source.problems)
    labels: dict[str, str] = {}
    _values_differ(source, (*path, "axes", "platform"), group.axes.platform)
    for addon, versions in group.axes.addons.items():
        key_path = (*path, "axes", addon)
        _values_differ(source, key_path, versions)
        entry = source.addons.get(addon)
        if source.unknown(key_path, "addons", "add-on", addon) or entry is None:
            continue
        if entry.version is None:
            what = f"{addon} has no version of its own that a group could vary over"
            source.problems.append(Problem(key_path, what, "give it one: `version: axis`"))
        label = axis_label(addon, entry.tag)
        if not label or label in labels:
            what = f"{addon} and {labels.get(label, 'nothing')} are {label!r} in a tag"
            cure = f"give one of them another word: `tag: ...` of {addon}"
            source.problems.append(Problem(key_path, what, cure))
        labels[label] = addon
    for index, addon in enumerate(group.requests):
        key_path = (*path, "requests", index)
        entry = source.addons.get(addon)
        misnamed = source.unknown(key_path, "addons", "add-on", addon)
        if not misnamed and entry and not entry.on_request:
            what = f"{addon} is in every image that `only` leaves it"
            cure = f"remove it here, or state `on_request: true` of {addon}"
            source.problems.append(Problem(key_path, what, cure))
    axes = (*FIXED_AXES, *group.axes.addons)
    for key, rules in (("exclude", group.exclude), ("downgrade", group.downgrade)):
        for index, rule in enumerate(rules):
            known = {*axes, *type(rule).model_fields}
            for word in rule.conditions:
                if word not in axes:
                    what = f"unknown key {word!r}{did_you_mean(word, known)}"
                    cure = f"known here: {', '.join(sorted(known))}"
                    source.problems.append(Problem((*path, key, index, word), what, cure))
    whole = group.axes.addons.keys() <= source.addons.keys()  # a broken add-on is reported
    return len(source.problems) == before and whole


def _values_differ(source: MatrixEntries, path: Path, values: Sequence[str]) -> None:
    """An axis has each value once; versions are compared, so 1.0 and 1.0.0 are one."""
    known: dict[object, str] = {}
    for index, value in enumerate(values):
        first = known.setdefault(Version(value) if value[0].isdigit() else value, value)
        if index != values.index(first):
            same = value if value == first else f"{value} is {first}, which"
            what = f"{same} stands on this axis already"
            source.problems.append(Problem((*path, index), what, "keep one of the two"))


def _chosen(
    source: MatrixEntries, path: Path, group: GroupEntry, bases: Mapping[str, Base]
) -> list[Base]:
    """The bases that a group's globs match, each once, in the file's order."""
    waiting = {series for series, entry in source.bases.items() if waits(entry)}
    perhaps = [
        f"{series}-{flavour}-{device}"
        for series in source.broken["bases"] | waiting
        for flavour in get_args(Flavour)
        for device in ("gpu", "cpu")
    ]
    perhaps += (source.image_bases.keys() | source.broken["bases"]) - bases.keys()
    globs = group.axes.base
    for index, glob in enumerate(globs):
        if not any(fnmatchcase(base, glob) for base in (*bases, *perhaps)):
            what = f"{glob!r} matches no base{did_you_mean(glob, bases)}"
            cure = (
                "bases are named <series>-<sagemaker|ec2|plain>-<gpu|cpu>, or as what has `image`"
            )
            source.problems.append(Problem((*path, "axes", "base", index), what, cure))
    return [base for name, base in bases.items() if any(fnmatchcase(name, glob) for glob in globs)]


def _image(source: MatrixEntries, group: str, cell: Cell, lowered: set[int]) -> Iterator[Image]:
    """The image of one cell, none where it cannot be; `lowered` gets the rules that it needs."""
    entry, path, base = source.images[group], ("images", group), cell.base
    for axis, version in cell.versions.items():
        if version == NONE and axis in base.carries:
            what = f"{base.name} carries {axis} {base.carries[axis]}, so `none` cannot be true"
            cure = "list the version that it carries, or exclude the base"
            source.problems.append(Problem((*path, "axes", axis), f"{what} of it", cure))
            return
    fields = cell.fields()
    name = entry.name.format(**fields)
    aliases = tuple(
        template.format(**fields)
        for template, conditions in entry.aliases.items()
        if cell.is_meant(conditions)
    )
    for key, text, legal in [("name", name, _NAME), *(("aliases", a, _ALIAS) for a in aliases)]:
        if not legal.fullmatch(text):
            what = f"{text!r} cannot be {'an image name' if key == 'name' else 'a tag'}"
            cure = "use lower-case letters, digits, dots and dashes"
            source.problems.append(Problem((*path, key), what, cure))
            return
    addons = list(_addons(source, group, name, cell))
    check_together(source, path, name, addons)
    has = {a.name: source.addons[a.name] for a in addons if a.action != "keep"}
    check_system(source, path, name, base, has)
    for addon in addons:
        _not_lowered(source, path, name, (cell, addon), lowered)
    image = Image(
        name=name,
        group=group,
        base=base,
        platform=cell.platform,
        addons=(*addons, *_tools(source, base)),
        size_budget_mb=entry.size_budget_mb,
        bytecode=entry.bytecode,
        aliases=aliases,
        repository=entry.repository,
        axes=tuple(
            axis_value(key, settings.tag, cell.versions[key])
            for key, settings in source.addons.items()
            if key in cell.versions
        ),
    )
    try:
        parse_image_tag(image_tag(image, "0" * 12))
    except UsageError as error:
        cure = "shorten `tag` of its add-ons, or vary over fewer of them"
        source.problems.append(Problem((*path, "axes"), f"{name}: {error.what}", cure))
        return
    yield image


def _addons(source: MatrixEntries, group: str, image: str, cell: Cell) -> Iterator[Addon]:
    """The add-ons of a cell, in the file's order. What it is named for has to be in it.

    What is in the image that the cell stands on comes first.
    """
    below = _inherited(cell.base)
    decided = list(_decided(source, group, image, cell))
    own = {addon.name for addon in decided}
    yield from (addon for name, addon in below.items() if name not in {*own, *source.tools})
    yield from decided


def _inherited(base: Base) -> dict[str, Addon]:
    image = base.image
    if image is None:
        return {}
    return {addon.name: inherit_addon(addon, image.name) for addon in image.addons}


def _tools(source: MatrixEntries, base: Base) -> Iterator[Addon]:
    below = _inherited(base)
    for name, entry in source.tools.items():
        yield below.get(name) or read_tool(name, entry)


def _decided(source: MatrixEntries, group: str, image: str, cell: Cell) -> Iterator[Addon]:
    """What the rules of each add-on say; those of the image below that are of no version stay."""
    below = {name for name, addon in _inherited(cell.base).items() if addon.kind != "package"}
    for name, entry in source.addons.items():
        if name in below:
            continue
        version = cell.versions.get(name)
        choice = AxisChoice(None if version == NONE else version) if version else None
        meant = is_for(entry.only, image, group, cell.base)
        meant = meant and (not entry.on_request or name in source.images[group].requests)
        addon = decide_addon(name, entry, cell.base, cell.platform, choice) if meant else None
        if addon is not None:
            yield addon
        elif choice is not None and choice.version is not None:
            what = f"{image} is named for {name} {choice.version}, which is not for it"
            cure = f"exclude it, or widen `only` and `platforms` of {name}"
            source.problems.append(Problem(("images", group, "axes", name), what, cure))


def _not_lowered(
    source: MatrixEntries, path: Path, image: str, choice: tuple[Cell, Addon], lowered: set[int]
) -> None:
    """Versions are compared: an image with less than its base carries needs a reason."""
    cell, addon = choice
    has = cell.base.carries.get(addon.name)
    if addon.action != "replace" or has is None or addon.version is None:
        return
    if Version(addon.version) >= Version(has):
        return
    group = source.images[str(path[1])]
    rules = [
        index
        for index, rule in enumerate(group.downgrade)
        if rule.addon == addon.name and cell.is_meant(rule.conditions)
    ]
    lowered.update(rules)
    if rules:
        return
    what = f"{image} would lower {addon.name} from {has}, which {cell.base.name} carries, to"
    cure = f"exclude it, or say why: `downgrade: [{{addon: {addon.name}, because: ...}}]`"
    source.problems.append(Problem(path, f"{what} {addon.version}", cure))


def _templates_hold(source: MatrixEntries, path: Path, group: GroupEntry) -> bool:
    """Whether `name` and `aliases` can be filled in; reports where not."""
    places = [((*path, "name"), group.name), *(((*path, "aliases", a), a) for a in group.aliases)]
    fields = (*PLAIN_FIELDS, *group.axes.addons)
    before = len(source.problems)
    for key_path, template in places:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            cure = f"as {_braced(group)}"
            source.problems.append(Problem(key_path, f"{template!r}: {error}", cure))
            continue
        for _, key, spec, conversion in parts:
            if key is not None and (key not in fields or spec or conversion):
                what = f"{template!r} uses {{{key}}}{did_you_mean(key, fields)}"
                source.problems.append(Problem(key_path, what, f"there are {_braced(group)}"))
    versions: dict[str, Sequence[str]] = {"platform": group.axes.platform, **group.axes.addons}
    for template, conditions in group.aliases.items():
        for axis, value in conditions.items():
            values = versions.get(axis)
            key_path = (*path, "aliases", template, axis)
            if values is None and axis != "base":
                what = f"alias {template!r} is for {axis}, which this group does not vary over"
                axes = ", ".join((*FIXED_AXES, *group.axes.addons))
                source.problems.append(Problem(key_path, what, f"one of {axes}, or `all`"))
            elif values is not None and value not in values:
                what = f"alias {template!r} is for {axis} {value}, which this group does not make"
                source.problems.append(
                    Problem(key_path, what, f"one of {', '.join(values)}, or `all`")
                )
    return len(source.problems) == before


def _braced(group: GroupEntry) -> str:
    return ", ".join(f"{{{field}}}" for field in (*PLAIN_FIELDS, *group.axes.addons))
