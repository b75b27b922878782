"""The cells of a group of images: its axes multiplied, and which of them a rule means."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from slipway.matrix.image_tags import taggable
from slipway.matrix.model import AxisValue, Base, Platform
from slipway.matrix.schema import AxesEntry

NONE = "none"
"""The value of an add-on's axis for a cell without it."""

FIXED_AXES = ("base", "platform")
"""The axes that every group has."""

PLAIN_FIELDS = ("series", "minor", "torch", "flavour", "device", "platform")
"""What the name of an image may hold, beside the add-ons that its group varies over."""


@dataclass(frozen=True)
class Cell:
    """One combination of the values of a group's axes."""

    base: Base
    platform: Platform
    versions: Mapping[str, str]  # add-on -> its version, or "none"

    def fields(self) -> dict[str, str]:
        """What templates of names and aliases may use."""
        facts = self.base.facts
        return {
            "series": self.base.series,
            "minor": ".".join(facts.torch.split(".")[:2]),
            "torch": facts.torch,
            "flavour": self.base.flavour,
            "device": facts.device,
            "platform": self.platform,
            **{addon: taggable(version) for addon, version in self.versions.items()},
        }

    def is_meant(self, conditions: Mapping[str, str]) -> bool:
        """Whether every condition holds; those on axes that there are not hold never."""
        names = {"base": self.base.name, "platform": self.platform}
        return all(
            fnmatchcase(names[axis], value) if axis in names else self.versions.get(axis) == value
            for axis, value in conditions.items()
        )


def cells_of(axes: AxesEntry, bases: Sequence[Base]) -> Iterator[Cell]:
    """Base by base, then the add-ons' versions in the order of the file, then the platforms."""
    for base in bases:
        for versions in itertools.product(*axes.addons.values()):
            for platform in axes.platform:
                yield Cell(base, platform, dict(zip(axes.addons, versions, strict=True)))


def axis_label(addon: str, label: str | None) -> str:
    """What stands before the add-on's version in a tag: its own choice, else its letters."""
    return label or re.sub("[^a-z]", "", addon)[:16]


def axis_value(addon: str, label: str | None, version: str) -> AxisValue:
    """One add-on's part of a cell."""
    return AxisValue(addon, axis_label(addon, label), None if version == NONE else version)
