"""What a fan-out is to do: which images, each by the same `inv ship`, with which flags. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.core import SlipwayError, UsageError
from slipway.matrix import Image


@dataclass(frozen=True)
class ShipFlags:
    """The flags of `inv ship` that a fan-out hands on; its help says what each does."""

    region: str = ""
    target: str = "ecr"
    compression: str = ""
    unlocked: bool = False
    no_engine: bool = False
    no_sqsh: bool = False
    base_from: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """As they are typed. Raises UsageError for what no worker can do."""
        if self.target != "ecr":
            raise UsageError(
                "the registry on a worker's own machine is of no use to others",
                cure="Give --target ecr and --region.",
            )
        if not self.region:
            raise UsageError("--region is missing", cure="Give it, or set slipway.region.")
        values = (
            ("--region", self.region),
            ("--target", self.target),
            ("--compression", self.compression),
            ("--base-from", self.base_from),
        )
        switches = (
            ("--unlocked", self.unlocked),
            ("--no-engine", self.no_engine),
            ("--no-sqsh", self.no_sqsh),
        )
        return (
            *(word for name, value in values if value for word in (name, value)),
            *(name for name, on in switches if on),
        )


@dataclass(frozen=True)
class PlannedImage:
    """One image of a fan-out; images of one base have layers in common."""

    name: str
    base: str
    build_id: str


@dataclass(frozen=True)
class FanoutPlan:
    """The images, and the words after `inv ship NAME`."""

    images: tuple[PlannedImage, ...]
    ship: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        rows = [[image.name, image.base, image.build_id] for image in self.images]
        return {"format": 1, "images": rows, "ship": list(self.ship)}

    @classmethod
    def of_json(cls, value: Any) -> FanoutPlan:
        """From such a file. Raises SlipwayError for one of another version of Slipway."""
        try:
            if value["format"] != 1:
                raise ValueError(value["format"])
            images = tuple(PlannedImage(name, base, build) for name, base, build in value["images"])
            return cls(images, tuple(value["ship"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SlipwayError(
                "this is no run that this version of Slipway can read",
                cure="Start another one: ./inv fanout NAMES --engine slurm --dir FOLDER",
            ) from error


def plan_fanout(
    images: Sequence[Image], flags: ShipFlags, build_id_of: Callable[[Image], str]
) -> FanoutPlan:
    """The plan for images. Raises UsageError for what no worker can do."""
    if flags.base_from and len({image.base.name for image in images}) > 1:
        raise UsageError(
            "--base-from is one base, and the images stand on several",
            cure="Name images of one base.",
        )
    return FanoutPlan(group_images(images, build_id_of), flags.words)


def group_images(
    images: Sequence[Image], build_id_of: Callable[[Image], str]
) -> tuple[PlannedImage, ...]:
    """One base's images after another's."""
    planned = [PlannedImage(image.name, image.base.name, build_id_of(image)) for image in images]
    return tuple(sorted(planned, key=lambda image: (image.base, image.name)))
