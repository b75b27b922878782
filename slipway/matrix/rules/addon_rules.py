"""What must hold of each add-on and between them, and the order that follows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from slipway.matrix.addons import AddonEntry, RequirementError, read_requirements
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.model import Addon
from slipway.matrix.yaml_file import Path as Place
from slipway.matrix.yaml_file import Problem


def take_requirement_files(source: MatrixEntries, root: Path) -> None:
    """What the requirements files ask for becomes part of each add-on's `requires`."""
    for name, entry in source.addons.items():
        if entry.requirements is None:
            continue
        key_path = ("addons", name, "requirements")
        try:
            file = read_requirements(root, entry.requirements)
        except RequirementError as error:
            what, cure = error.args
            source.problems.append(Problem(key_path, what, cure))
            continue
        source.read_files |= file.hashes
        if not file.requirements:
            what = f"{entry.requirements} asks for nothing"
            source.problems.append(Problem(key_path, what, "add a line to it, or remove this key"))
        asked = [*entry.requires, *file.requirements]
        source.addons[name] = entry.model_copy(update={"requires": asked})


def check_addons(source: MatrixEntries) -> None:
    """Everything that can be said of add-ons without the images that have them."""
    for name, addon in source.addons.items():
        if addon.version is None:
            _without_version(source, name, addon)
        else:
            _with_version(source, name, addon)
        for index, other in enumerate(addon.needs):
            source.unknown(("addons", name, "needs", index), "addons", "add-on", other)


def order_addons(source: MatrixEntries) -> None:
    """What an add-on needs comes before it; the order of the file decides all else."""
    ordered: dict[str, AddonEntry] = {}
    for name in source.addons:
        _put(source, ordered, name, ())
    source.addons = ordered


def _put(
    source: MatrixEntries, ordered: dict[str, AddonEntry], name: str, above: tuple[str, ...]
) -> None:
    if name in ordered or name not in source.addons:
        return
    if name in above:
        circle = " needs ".join((*above[above.index(name) :], name))
        key_path = ("addons", name, "needs")
        problem = Problem(
            key_path, f"{circle}: one of them has to come first", "remove one of these"
        )
        source.problems.append(problem)
        return
    for other in source.addons[name].needs:
        _put(source, ordered, other, (*above, name))
    ordered.setdefault(name, source.addons[name])


def _without_version(source: MatrixEntries, name: str, addon: AddonEntry) -> None:
    key_path: Place = ("addons", name)
    if not (addon.parts or addon.env or addon.labels):
        what = f"{name} adds nothing"
        cure = "state `version`, `requires`, `system`, `files`, `env` or another of its keys"
        source.problems.append(Problem(key_path, what, cure))
    if addon.index and not (addon.requires or addon.requirements):
        what = f"{name} has an `index`, and no packages"
        source.problems.append(
            Problem((*key_path, "index"), what, "state `requires`, or remove it")
        )
    carried = any(name in series.carries for series in source.bases.values())
    if addon.with_ or addon.replace_below or carried:
        what = f"{name} has no `version`, and nothing that is kept or replaced is without one"
        source.problems.append(Problem(key_path, what, "state its version, as version: 5.1.4"))
    if addon.source and not re.fullmatch("[a-z0-9][a-z0-9_.-]{0,99}", name):
        what = f"{name!r} cannot name a stage of a build"
        cure = "use lower-case letters, digits, dots and dashes"
        source.problems.append(Problem(key_path, what, cure))
    targets: dict[str, int] = {}
    for index, files in enumerate(addon.files):
        if files.to in targets:
            what = f"{name} has {files.to} twice"
            source.problems.append(
                Problem((*key_path, "files", index), what, "keep one of the two")
            )
        targets[files.to] = index
        if files.from_.endswith("/") and not files.to.endswith("/"):
            what = f"{files.from_} is a folder, and {files.to} a file"
            cure = f"write to: {files.to}/ for a folder there"
            source.problems.append(Problem((*key_path, "files", index, "to"), what, cure))


def _with_version(source: MatrixEntries, name: str, addon: AddonEntry) -> None:
    key_path: Place = ("addons", name)
    for key in addon.parts:
        what = f"{name} has both `version` and `{key}`"
        cure = "use `with` for packages that come along, and an add-on of its own for all else"
        source.problems.append(Problem((*key_path, key), what, cure))
    bound = addon.replace_below
    if addon.version == "axis":
        if bound:
            what = f"{name} is what `axes` of a group say, so nothing is replaced below a bound"
            cure = "leave `replace_below` out, or pin a version"
            source.problems.append(Problem((*key_path, "replace_below"), what, cure))
        varied = any(name in group.axes.addons for group in source.images.values())
        if not varied and not source.broken["images"]:
            what = f"no group of `images` varies over {name}"
            cure = f"list versions under `axes` of a group, as {name}: [1.2.3, none], or pin one"
            source.problems.append(Problem((*key_path, "version"), what, cure))
    elif bound and Version(str(addon.version)) < Version(bound.version):
        what = f"{name} {addon.version} would itself be replaced: it is below {bound.version}"
        cure = "raise `version`, or lower `replace_below`"
        source.problems.append(Problem((*key_path, "version"), what, cure))


def check_together(
    source: MatrixEntries, key_path: Place, image: str, addons: Sequence[Addon]
) -> None:
    """What must hold between the add-ons of one image."""
    has = {addon.name: source.addons[addon.name] for addon in addons}
    own = {addon.name for addon in addons if addon.action != "keep"}
    for name, entry in has.items():
        for other in entry.needs:
            if other not in has:
                what = f"{image} has {name}, which needs {other}, and that is not for it"
                cure = f"widen `only` of {other}, or narrow that of {name}"
                source.problems.append(Problem(key_path, what, cure))
    for key in ("workdir", "user"):
        named = [name for name, entry in has.items() if getattr(entry, key) and name in own]
        if len(named) > 1:
            what = f"{image} has a `{key}` of {' and of '.join(named)}"
            source.problems.append(Problem(key_path, what, "narrow `only` of all but one"))
