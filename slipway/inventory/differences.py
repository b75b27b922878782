"""What differs between two images: packages, configuration, layers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from slipway.core import human_bytes
from slipway.inventory.version_order import compare_versions
from slipway.records import ImageInventory

Direction = Literal["added", "removed", "up", "down", "changed"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True)
class PackageChange:
    """One package that differs. "changed": its versions have no order."""

    kind: str  # "python", "dpkg", "rpm"
    name: str
    before: str | None
    after: str | None
    direction: Direction

    def __str__(self) -> str:
        """For a person."""
        if self.before is None or self.after is None:
            return f"{self.kind} {self.name} {self.before or self.after} ({self.direction})"
        return f"{self.kind} {self.name} {self.before} -> {self.after} ({self.direction})"


@dataclass(frozen=True)
class SettingChange:
    """One part of the configuration that differs: a variable of ENV, ENTRYPOINT, a label."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """For a person."""
        return f"{self.name}: {self.before or '(none)'} -> {self.after or '(none)'}"


@dataclass(frozen=True)
class ImageDifference:
    """All that differs. Sizes are compressed bytes; `unknown` says what could not be compared."""

    packages: tuple[PackageChange, ...]
    settings: tuple[SettingChange, ...]
    size_before: int
    size_after: int
    layers_shared: int
    layers_gone: tuple[tuple[str, int], ...]
    layers_new: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...]

    @property
    def downgrades(self) -> tuple[PackageChange, ...]:
        """The packages that got an earlier version."""
        return tuple(change for change in self.packages if change.direction == "down")

    @property
    def summary(self) -> str:
        """Counts and sizes in one line."""
        counts = Counter(change.direction for change in self.packages)
        packages = ", ".join(f"{counts[word]} {word}" for word in DIRECTIONS if counts[word])
        return (
            f"packages: {packages or 'the same'}; {len(self.settings)} settings; "
            f"{human_bytes(self.size_before)} -> {human_bytes(self.size_after)} compressed, "
            f"{self.layers_shared} layers shared, {len(self.layers_new)} new of "
            f"{human_bytes(sum(size for _, size in self.layers_new))}"
        )

    def lines(self, titles: Mapping[str, str] | None = None) -> Iterator[str]:
        """One line a difference, for a person. `titles`: what made a layer, by its digest."""
        yield from map(str, self.packages)
        yield from map(str, self.settings)
        layers = [(*layer, "removed") for layer in self.layers_gone]
        layers += [(*layer, "added") for layer in self.layers_new]
        for digest, size, word in layers:
            title = (titles or {}).get(digest, "")
            yield f"layer {digest[:19]} {human_bytes(size)} ({word}) {title}".rstrip()
        yield from (f"not compared: {text}" for text in self.unknown)


def compare_inventories(before: ImageInventory, after: ImageInventory) -> ImageDifference:
    """From the one to the other."""
    python = ({name: (v,) for name, v in image.python.items()} for image in (before, after))
    packages = list(_package_changes("python", *python))
    unknown = [*before.unknown, *(text for text in after.unknown if text not in before.unknown)]
    if before.system is not None and after.system is not None:
        kinds = {before.manager, after.manager} - {""}
        if len(kinds) == 1:
            packages += _package_changes(kinds.pop(), *_system_versions(before, after))
        elif kinds:
            unknown.append(f"packages of {before.manager} and of {after.manager}")
    known = {digest for digest, _ in before.layers}
    kept = {digest for digest, _ in after.layers}
    return ImageDifference(
        packages=tuple(packages),
        settings=tuple(_setting_changes(before.config, after.config)),
        size_before=sum(size for _, size in before.layers),
        size_after=sum(size for _, size in after.layers),
        layers_shared=len(known & kept),
        layers_gone=tuple(layer for layer in before.layers if layer[0] not in kept),
        layers_new=tuple(layer for layer in after.layers if layer[0] not in known),
        unknown=tuple(unknown),
    )


Versions = Mapping[str, tuple[str, ...]]


def _system_versions(*images: ImageInventory) -> list[Versions]:
    """Versions by name; where one is there for several architectures, by name:architecture."""
    architectures: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        own: defaultdict[str, set[str]] = defaultdict(set)
        for package in image.system or ():
            own[package.name].add(package.architecture)
        for name, several in own.items():
            if len(several) > 1:
                architectures[name] |= several
    tables: list[Versions] = []
    for image in images:
        versions: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for package in image.system or ():
            qualified = f"{package.name}:{package.architecture}"
            key = qualified if package.name in architectures else package.name
            versions[key] += (package.version,)
        tables.append(versions)
    return tables


def _package_changes(kind: str, before: Versions, after: Versions) -> Iterator[PackageChange]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ()), after.get(name, ())
        if old == new:
            continue
        direction: Direction
        if not old or not new:
            direction = "removed" if not new else "added"
        else:
            order = compare_versions(kind, old[-1], new[-1]) if len(old) == len(new) == 1 else None
            direction = "changed" if not order else "up" if order < 0 else "down"
        yield PackageChange(kind, name, ", ".join(old) or None, ", ".join(new) or None, direction)


def _setting_changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[SettingChange]:
    one, two = _settings(before), _settings(after)
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            yield SettingChange(name, one.get(name), two.get(name))


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """ENV and labels one by one, the rest as it stands."""
    settings = {
        name: str(value) if isinstance(value, str) else " ".join(map(str, value))
        for name, value in config.items()
        if name not in ("Env", "Labels") and isinstance(value, str | list)
    }
    for entry in config.get("Env") or ():
        name, _, value = str(entry).partition("=")
        settings[f"ENV {name}"] = value
    for name, value in (config.get("Labels") or {}).items():
        settings[f"LABEL {name}"] = str(value)
    return settings
