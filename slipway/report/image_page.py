"""The page of one image: what it adds to its base, and why it is what it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from slipway.matrix import Addon
from slipway.records import ImageInventory, ImageLayers, PythonLock
from slipway.report.build_history import BuildPair, BuildRow, build_history, built_notes
from slipway.report.matrix_page import MatrixRow, matrix_row
from slipway.report.report_facts import CheckResult, ImageFacts, ReportFacts, SqshFacts

MOST_CHECKS = 400
MOST_SHARING = 6  # names of other images at one layer
HOT_BINS = 200  # parts of a .sqsh in the picture of what a start reads


@dataclass(frozen=True)
class LayerRow:
    """One layer. `start` is what lies below it, in bytes: where its bar begins."""

    number: int
    words: str
    size: int
    start: int
    of_base: bool
    shared: tuple[str, ...]  # other images that have it, the first few
    sharing: int  # how many have it


@dataclass(frozen=True)
class PackageRow:
    """One Python package that the image brings."""

    name: str
    before: str  # version in the base, "" for none, "?" where the base's are not known
    version: str
    change: Literal["added", "up", "down", "same", "set"]
    addon: str
    why: str


@dataclass(frozen=True)
class BaseSection:
    """What `inv lock --inventory` has read in the base. `system` None: it cannot be told."""

    distribution: str
    python: int
    system: int | None
    layers: int
    compressed: int  # bytes of all layers
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class VariableRow:
    """One variable of ENV. `change`: added, changed, base (as the base has it), set (not known)."""

    name: str
    value: str
    change: str


@dataclass(frozen=True)
class HotBin:
    """A stretch of a .sqsh that a start reads. `order` 0 is read first."""

    start: int
    size: int
    order: int


@dataclass(frozen=True)
class SqshSection:
    """The exported file."""

    path: str
    size: int
    digest: str
    entries: int
    options: tuple[tuple[str, str], ...]
    exists: bool
    hot_bytes: int
    hot: tuple[HotBin, ...]


@dataclass(frozen=True)
class PushedTag:
    """Where the image was pushed to."""

    target: str
    uri: str
    digest: str
    size: int
    seconds: float


@dataclass(frozen=True)
class ImagePage:
    """One image."""

    row: MatrixRow
    reference: str
    build_id: str
    image_id: str
    because: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]  # what it makes true -> command
    base_tag: str
    base_digest: str
    sizes: str  # of layers: "unpacked", "compressed", ""
    layers: tuple[LayerRow, ...]
    base_bytes: int
    added_bytes: int
    packages: tuple[PackageRow, ...]
    base_packages: int | None
    base: BaseSection | None
    variables: tuple[VariableRow, ...]
    entrypoint: str
    cmd: str
    user: str
    workdir: str
    checks: tuple[CheckResult, ...]
    checks_note: str
    sqsh: SqshSection | None
    aliases: tuple[str, ...]
    pushed: tuple[PushedTag, ...]
    builds: tuple[BuildRow, ...]
    pairs: tuple[BuildPair, ...]


def image_pages(facts: ReportFacts) -> tuple[ImagePage, ...]:
    """A page an image, in the matrix' order."""
    owners = layer_owners(facts.images)
    bases = {each.image.base.name: each.image.base for each in facts.images}
    return tuple(
        image_page(
            each,
            matrix_row(each, bases.values(), facts.today),
            owners,
            built_notes(facts.runs, each.image.name),
        )
        for each in facts.images
    )


def image_page(
    facts: ImageFacts,
    row: MatrixRow,
    owners: Mapping[str, Sequence[str]],
    notes: Sequence[Mapping[str, Any]],
) -> ImagePage:
    """The page of one image; `owners` tells which images have a layer, `notes` its builds."""
    name, record, layers = facts.image.name, facts.record, facts.layers
    built = record.built
    if layers is not None and (built is None or layers.image_id != built.image_id):
        layers = None  # of another build
    rows = layer_rows(layers, name, owners) if layers else ()
    packages = facts.base_lock.packages if facts.base_lock else None
    builds, pairs = build_history(notes)
    return ImagePage(
        row=row,
        reference=built.reference if built else "",
        build_id=facts.step.build_id,
        image_id=built.image_id if built else "",
        because=facts.step.because,
        commands=tuple(
            (what, f"./inv {task} {name}")
            for what, task in (
                ("the base's digest is recorded", "lock"),
                ("it is built", "build"),
                ("it is verified", "verify"),
                ("it has a .sqsh", "sqsh"),
                ("it is pushed", "push"),
                ("all of it", "ship"),
            )
        ),
        base_tag=f"{facts.image.base.repository}:{facts.image.base.tag}",
        base_digest=(facts.base_lock.digest or "") if facts.base_lock else "",
        sizes=layers.sizes if layers else "",
        layers=rows,
        base_bytes=sum(layer.size for layer in rows if layer.of_base),
        added_bytes=sum(layer.size for layer in rows if not layer.of_base),
        packages=package_rows(facts),
        base_packages=len(packages) if packages is not None else None,
        base=base_section(facts.base_inventory) if facts.base_inventory else None,
        variables=variable_rows(layers) if layers else (),
        entrypoint=" ".join(layers.entrypoint) if layers else "",
        cmd=" ".join(layers.cmd) if layers else "",
        user=(layers.user or "root") if layers else facts.image.user,
        workdir=(layers.workdir or "/") if layers else facts.image.workdir,
        checks=tuple(sorted(facts.checks, key=lambda check: -check.seconds))[:MOST_CHECKS],
        checks_note=checks_note(facts),
        sqsh=sqsh_section(facts.sqsh) if facts.sqsh else None,
        aliases=facts.image.aliases,
        pushed=tuple(
            PushedTag(target, push.uri, push.digest, push.size, push.seconds)
            for target, push in sorted(record.pushed.items())
        ),
        builds=builds,
        pairs=pairs,
    )


def layer_owners(images: Iterable[ImageFacts]) -> dict[str, list[str]]:
    """Which images have a layer, by its diff id."""
    owners: dict[str, list[str]] = {}
    for each in images:
        for diff_id in dict.fromkeys(
            layer.diff_id for layer in (each.layers.layers if each.layers else ())
        ):
            if diff_id:
                owners.setdefault(diff_id, []).append(each.image.name)
    return owners


def layer_rows(
    layers: ImageLayers, name: str, owners: Mapping[str, Sequence[str]]
) -> tuple[LayerRow, ...]:
    """The layers with what lies below each, and who has them as well."""
    rows, below = [], 0
    for number, layer in enumerate(layers.layers, 1):
        others = [owner for owner in owners.get(layer.diff_id, ()) if owner != name]
        rows.append(
            LayerRow(
                number,
                layer.words,
                layer.size,
                below,
                layer.of_base,
                tuple(others[:MOST_SHARING]),
                len(others),
            )
        )
        below += layer.size
    return tuple(rows)


def package_rows(facts: ImageFacts) -> tuple[PackageRow, ...]:
    """What the locked add-ons bring, each against what is below it."""
    known = facts.base_lock.packages if facts.base_lock else None
    state = {str(canonicalize_name(n)): version for n, version in (known or {}).items()}
    addons = {addon.name: addon for addon in facts.image.addons}
    rows = []
    for addon_name, lock in facts.python:
        addon = addons.get(addon_name)
        for pin in lock.pins:
            name = str(canonicalize_name(pin.name))
            before = state.get(name, "" if known is not None else "?")
            change = package_change(before, pin.version)
            why = facts.may_move.get(name) or _why(name, addon, lock)
            rows.append(PackageRow(pin.name, before, pin.version, change, addon_name, why))
            state[name] = pin.version
    return tuple(sorted(rows, key=lambda row: (row.change == "same", row.name)))


def _why(name: str, addon: Addon | None, lock: PythonLock) -> str:
    asked = {str(canonicalize_name(_project(text))) for text in lock.asked}
    if addon is not None:
        asked |= {str(canonicalize_name(_project(text))) for text in addon.requirements}
    if name in asked and addon is not None:
        return addon.because
    return "a requirement of what is asked for"


def _project(requirement: str) -> str:
    for end, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:end]
    return requirement


def package_change(before: str, after: str) -> Literal["added", "up", "down", "same", "set"]:
    """How a version moved; `set` where what was before is not known."""
    if before == "":
        return "added"
    if before == "?":
        return "set"
    try:
        old, new = Version(before), Version(after)
    except InvalidVersion:
        return "same" if before == after else "set"
    return "same" if old == new else "up" if new > old else "down"


def base_section(inventory: ImageInventory) -> BaseSection:
    """The inventory of a base in a few numbers."""
    return BaseSection(
        inventory.distribution,
        len(inventory.python),
        len(inventory.system) if inventory.system is not None else None,
        len(inventory.layers),
        sum(size for _, size in inventory.layers),
        inventory.unknown,
    )


def variable_rows(layers: ImageLayers) -> tuple[VariableRow, ...]:
    """ENV, what the image changes first."""
    base = dict(_pair(entry) for entry in layers.base_env)
    rows = []
    for name, value in map(_pair, layers.env):
        change = "set" if not base else "added" if name not in base else "changed"
        if base.get(name) == value:
            change = "base"
        rows.append(VariableRow(name, value, change))
    return tuple(sorted(rows, key=lambda row: (row.change == "base", row.name)))


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def checks_note(facts: ImageFacts) -> str:
    """What has to be said beside the checks; "" for nothing."""
    verified, built = facts.record.verified, facts.record.built
    if verified is None:
        return "No verification of this image has passed on this machine."
    passed = sum(check.state == "passed" for check in facts.checks)
    if built is None or verified.image_id != built.image_id:
        return f"{verified.passed} checks passed on an earlier build."
    if passed != verified.passed:
        return (
            f"{verified.passed} checks passed in {verified.seconds:.1f} s; the results on this page"
            f" are of a later run with {passed} that passed (verify --only, or a failed one)."
        )
    return ""


def sqsh_section(facts: SqshFacts) -> SqshSection:
    """The file, with what a start reads in a bounded number of stretches."""
    return SqshSection(
        path=facts.path,
        size=facts.size,
        digest=facts.digest,
        entries=facts.entries,
        options=tuple((str(key), str(value)) for key, value in sorted(facts.options.items())),
        exists=facts.exists,
        hot_bytes=sum(end - start for start, end in facts.hot),
        hot=hot_bins(facts.hot, facts.size),
    )


def hot_bins(hot: Sequence[tuple[int, int]], size: int) -> tuple[HotBin, ...]:
    """Stretches of the file in the order of their first reading, merged to a picture's width."""
    grain = max(size // HOT_BINS, 1)
    bins: dict[int, list[int]] = {}  # number of a grain -> bytes, order
    for order, (start, end) in enumerate(hot):
        at = start
        while at < end:
            number = at // grain
            upto = min(end, (number + 1) * grain)
            entry = bins.setdefault(number, [0, order])
            entry[0] += upto - at
            at = upto
    return tuple(
        HotBin(number * grain, count, order) for number, (count, order) in sorted(bins.items())
    )
