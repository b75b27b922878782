"""What would be done, and why. Pure: needs no Docker, no AWS, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple

from slipway.derive.build_id import UNLOCKED, BuildInputs
from slipway.matrix import Base, Image, past_support
from slipway.records import BaseLock, ImageRecord

MOST_NAMES = 6

Action = Literal["build", "rebuild", "in the registry", "up to date"]
"""`in the registry`: the target has this very build, which is taken from there."""

UNPACKED_PER_COMPRESSED = 2.2
"""Disk in the engine for each compressed byte of a base: 4.65 GiB for 2.26 GB pulled with overlay2
(measured once with a 9-layer, 2.25 GB base; the containerd store takes about 3.4)."""


@dataclass(frozen=True)
class PlanStep:
    """The plan for one image."""

    image: Image
    action: Action
    because: tuple[str, ...]
    build_id: str
    notes: tuple[Note, ...] = ()
    layers: tuple[str, ...] = ()  # those that the build makes anew; the others are there already


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that the builds need in the engine. `unknown` bases have no recorded size."""

    needed: int
    unknown: tuple[str, ...]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _changed(old: Mapping[str, str], new: Mapping[str, str], noun: str) -> list[str]:
    reasons = []
    for name in sorted({*old, *new}):
        if name not in old:
            reasons.append(f"{noun} {name} added")
        elif name not in new:
            reasons.append(f"{noun} {name} removed")
        elif old[name] != new[name]:
            reasons.append(f"{noun} {name} changed")
    return reasons


def _pins(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    reasons = []
    for name in sorted({*old, *new}):
        if name not in old:
            reasons.append(f"add-on {name} {new[name]} added")
        elif name not in new:
            reasons.append(f"add-on {name} removed")
        elif old[name] != new[name]:
            reasons.append(f"pin {name} {old[name]} -> {new[name]}")
    return reasons


def build_reasons(
    old: Mapping[str, Any], new: BuildInputs, below: Image | None = None
) -> tuple[str, ...]:
    """Why an image whose inputs were `old` is built again; most telling first.

    `below` is the image of the matrix that it stands on.

    `old` comes from a record, perhaps of a Slipway that knew fewer inputs: what it lacks is taken
    for unchanged where something else explains the rebuild, and named where nothing does.
    """
    now = new.as_json()
    reasons = _pins(old.get("addons", {}), now["addons"])
    if old.get("base") != now["base"]:
        was = _short(str(old.get("base", UNLOCKED)))
        what = f"the image below, {below.name}," if below else "base digest"
        reasons.insert(0, f"{what} moved {was} -> {_short(now['base'])}")
    if not reasons:
        reasons += _changed(old.get("python", {}), now["python"], "locked requirements of")
    reasons += _changed(old.get("tools", {}), now["tools"], "binary of")
    reasons += _changed(old.get("files", {}), now["files"], "files of")
    reasons += _changed(old.get("system", {}), now["system"], "locked packages of")
    reasons += _changed(old.get("sources", {}), now["sources"], "script or inputs of")
    reasons += [
        f"{words} changed"
        for part, words in _PARTS.items()
        if part in old and old[part] != now[part]
    ]
    if not reasons and old.get("dockerfile") != now["dockerfile"]:
        cause = "template" if old.get("templates") != now["templates"] else "matrix cell"
        reasons.append(f"{cause} changed")
    return tuple(reasons) or ("its inputs are counted otherwise than when it was built",)


_PARTS = {
    "launcher": "launcher",
    "installer": "installer",
    "system_installer": "installer of system packages",
    "bytecode": "what compiles modules",
    "wheels": "how wheels are built of sdists",
}


def changed_layers(old: Mapping[str, Any], new: BuildInputs) -> tuple[str, ...]:
    """The layers of an image that a build makes anew, lowest first."""
    was = old.get("layers", {})
    return tuple(name for name, key in new.layers.items() if was.get(name) != key)


def notes_on(base: Base, lock: BaseLock | None, today: date) -> tuple[Note, ...]:
    """What a person should know before building on this base."""
    notes = []
    if support := past_support(base, today):
        notes.append(Note(base.name, f"{support} (usable, but patched no more)"))
    if base.registry is not None and (lock is None or lock.digest is None):
        why = lock.unresolved if lock and lock.unresolved else "never asked: run `./inv lock`"
        notes.append(Note(base.name, f"no recorded digest, builds need --unlocked ({why})"))
    return tuple(notes)


def plan_steps(
    images: Sequence[Image],
    inputs: Mapping[str, BuildInputs],
    records: Mapping[str, ImageRecord],
    bases: Mapping[str, BaseLock],
    today: date,
) -> tuple[PlanStep, ...]:
    """One step an image, in the order given."""
    steps = []
    for image in images:
        new = inputs[image.name]
        built = records[image.name].built
        action: Action
        because: tuple[str, ...]
        layers: tuple[str, ...] = ()
        if built is None:
            action, because, layers = "build", ("new",), tuple(new.layers)
        elif built.build_id == new.build_id:
            action, because = "up to date", ("nothing that decides its content changed",)
        else:
            action, because = "rebuild", build_reasons(built.inputs, new, image.base.image)
            layers = changed_layers(built.inputs, new)
        notes = notes_on(image.base, bases.get(image.base.name), today)
        steps.append(PlanStep(image, action, because, new.build_id, notes, layers))
    return tuple(steps)


def disk_need(steps: Sequence[PlanStep], bases: Mapping[str, BaseLock]) -> DiskNeed:
    """Disk that the builds of a plan need in the engine; each base counts once."""
    todo = [step for step in steps if step.action != "up to date"]
    needed = sum(step.image.size_budget_mb for step in todo) * 1_000_000
    unknown = []
    for name in sorted({step.image.base.root.name for step in todo}):
        lock = bases.get(name)
        if lock and lock.size:
            needed += int(lock.size * UNPACKED_PER_COMPRESSED)
        else:
            unknown.append(name)
    return DiskNeed(needed, tuple(unknown))


def is_locked(inputs: BuildInputs) -> bool:
    """Whether everything that decides the content is pinned by hash."""
    pinned = (inputs.python, inputs.tools, inputs.system)
    return UNLOCKED not in (inputs.base, *(pin for part in pinned for pin in part.values()))


class Note(NamedTuple):
    """`text` is true of `about`; the same text about several things is one line for a person."""

    about: str
    text: str


def grouped_notes(notes: Iterable[Note]) -> list[str]:
    """One line for each text, with the names that it is about (the first few where many)."""
    by_text: dict[str, set[str]] = {}
    for note in notes:
        by_text.setdefault(note.text, set()).add(note.about)
    lines = []
    for text, names in sorted(by_text.items()):
        some = sorted(names)
        more = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
        lines.append(f"note: {text}: {', '.join(some[:MOST_NAMES])}{more}")
    return lines
