"""What images without an engine take on the disk, said before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slipway import sqsh
from slipway.core import SlipwayError, disk_space, human_bytes, nearest_existing
from slipway.derive import BuildInputs, PlanStep
from slipway.matrix import Base, images_below
from slipway.pipeline.appended.base_sources import BaseSources
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings


@dataclass(frozen=True)
class AppendedDisk:
    """Bytes of builds and exports without an engine, all of them estimates from above.

    `own` are wheels and new layers, `compiled` the layer cache, `unpacked` the contents of layers
    in work, `files` the .sqsh that go to the same file system. Sizes of `unknown` bases nobody
    tells.
    """

    own: int
    compiled: int
    unpacked: int
    files: int
    unknown: tuple[str, ...]
    free: int
    where: str

    @property
    def fullest(self) -> int:
        """The most at one time."""
        return self.own + self.compiled + max(self.unpacked, self.files)

    def notes(self) -> list[str]:
        """For a person."""
        lines = [
            f"disk without an engine: about {human_bytes(self.fullest)} at its fullest, "
            f"{human_bytes(self.free)} free in {self.where} (wheels and new layers "
            f"{human_bytes(self.own)}, compiled layers {human_bytes(self.compiled)}, then .sqsh "
            f"{human_bytes(self.files)}; while layers are read {human_bytes(self.unpacked)})"
        ]
        if self.fullest > self.free:
            lines.append(
                "  that does not fit: --output names another disk for .sqsh, SLIPWAY_STATE one for "
                f"all; `ship --no-sqsh` and `push` take {human_bytes(self.own)}"
            )
        if self.unknown:
            lines.append(
                f"  plus {', '.join(self.unknown)}, whose size no lock and no registry told"
            )
        return lines


def appended_disk(
    checkout: Checkout,
    settings: Settings,
    steps: Sequence[PlanStep],
    inputs: Mapping[str, BuildInputs],
    sources: BaseSources,
) -> AppendedDisk:
    """What is to be done takes so much. Bases' manifests are asked for; nothing else is read."""
    project, options = checkout.project, settings.sqsh_options
    todo = [step.image for step in steps if step.action != "up to date"]
    own = compiled = unpacked = files = 0
    known: dict[str, list[int]] = {}
    unknown = set()
    with sources as bases:
        for image in todo:
            root, lowest = image.base.root, (*images_below([image]), image)[0]
            first = root.name not in known
            if first:
                known[root.name] = _layers(checkout, bases, root, inputs[lowest.name])
                if not known[root.name]:
                    unknown.add(root.name)
            base = known[root.name]
            added = image.size_budget_mb * 1_000_000
            need = sqsh.export_disk([*(base if first else ()), added], sum(base) + added, options)
            own += int(2 * sqsh.PACKED_RATIO * added)  # as wheels, and as layers
            compiled += need.compiled
            unpacked = max(unpacked, need.unpacked)
            files += need.file
    room = disk_space(project.state)
    folder = settings.sqsh_dir or project.sqsh
    beside = nearest_existing(folder).stat().st_dev == nearest_existing(project.state).stat().st_dev
    return AppendedDisk(
        own, compiled, unpacked, files if beside else 0, tuple(sorted(unknown)), room.free,
        str(project.state),
    )  # fmt: skip


def _layers(checkout: Checkout, bases: BaseSources, base: Base, inputs: BuildInputs) -> list[int]:
    """Unpacked sizes of a base's layers: from where it is, else all together from its lock."""
    try:
        packed = [int(layer["size"]) for layer in bases.base(base, inputs.base).layers]
    except SlipwayError:  # a plan fails for no network; the summary says what is not known
        lock = checkout.locks.bases.get(base.name)
        packed = [lock.size] if lock and lock.size else []
    return [int(size / sqsh.PACKED_RATIO) for size in packed]
