"""The page of the matrix: a row an image, what is true of it, and what makes it true. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from packaging.version import InvalidVersion, Version

from slipway.core import human_bytes
from slipway.matrix import Base
from slipway.report.report_facts import ImageFacts, ReportFacts

CellState = Literal["yes", "old", "no"]
"""`old`: of an earlier build, or not there any more."""

ENDS_SOON_DAYS = 90


@dataclass(frozen=True)
class StageCell:
    """Whether a stage's result is there for what a build would make now."""

    state: CellState
    text: str


@dataclass(frozen=True)
class Currency:
    """How far a base is behind. `newer` counts later versions of its kind in versions.yaml."""

    end_of_patch: str  # ISO date, "" where none is known
    days: int | None  # until then; negative: past it
    newer: int

    @property
    def state(self) -> Literal["past", "soon", "fine"]:
        """For a colour; the text says the same."""
        if self.days is None:
            return "fine"
        return "past" if self.days < 0 else "soon" if self.days < ENDS_SOON_DAYS else "fine"

    @property
    def text(self) -> str:
        """For a person."""
        parts = []
        if self.days is not None:
            ends = f"past since {self.end_of_patch}" if self.days < 0 else self.end_of_patch
            parts.append(ends)
        if self.newer:
            parts.append(f"{self.newer} newer")
        return ", ".join(parts) or "no date"


@dataclass(frozen=True)
class MatrixRow:
    """One image."""

    name: str
    base: str
    platform: str
    device: str
    torch: str
    addons: tuple[str, ...]
    currency: Currency
    action: str
    because: str
    built: StageCell
    verified: StageCell
    exported: StageCell
    pushed: StageCell
    digest: StageCell  # of the base: recorded, moved since the build, not recorded
    command: str  # the next one; "" where all is done


@dataclass(frozen=True)
class MatrixPage:
    """All images."""

    today: str
    slipway: str
    rows: tuple[MatrixRow, ...]
    counts: tuple[tuple[str, int], ...]  # what the plan would do -> images
    nothing_built: bool
    problems: tuple[str, ...]


def matrix_page(facts: ReportFacts) -> MatrixPage:
    """The page of these facts."""
    bases = {each.image.base.name: each.image.base for each in facts.images}
    rows = tuple(matrix_row(each, bases.values(), facts.today) for each in facts.images)
    actions = [row.action for row in rows]
    return MatrixPage(
        today=facts.today.isoformat(),
        slipway=facts.slipway,
        rows=rows,
        counts=tuple((action, actions.count(action)) for action in sorted(set(actions))),
        nothing_built=all(each.record.built is None for each in facts.images),
        problems=facts.problems,
    )


def matrix_row(facts: ImageFacts, bases: Iterable[Base], today: date) -> MatrixRow:
    """One image's row."""
    image, base = facts.image, facts.image.base
    stages = stage_cells(facts)
    digest = digest_cell(facts)
    return MatrixRow(
        name=image.name,
        base=base.name,
        platform=image.platform,
        device=base.facts.device,
        torch=image.torch,
        addons=tuple(addon.title for addon in image.own_addons),
        currency=base_currency(base, bases, today),
        action=facts.step.action,
        because="; ".join(facts.step.because),
        built=stages["built"],
        verified=stages["verified"],
        exported=stages["exported"],
        pushed=stages["pushed"],
        digest=digest,
        command=next_command(image.name, stages, digest),
    )


def stage_cells(facts: ImageFacts) -> dict[str, StageCell]:
    """The four stages of an image; a later one holds only for the build that is there."""
    record, name = facts.record, facts.image.name
    built = record.built
    if built is None:
        return dict.fromkeys(("built", "verified", "exported", "pushed"), StageCell("no", "no"))
    current = facts.step.action == "up to date"
    cells = {"built": StageCell("yes" if current else "old", human_bytes(built.size))}

    def cell(image_id: str | None, text: str, *, there: bool = True) -> StageCell:
        if image_id is None:
            return StageCell("no", "no")
        if not there:
            return StageCell("old", "file is gone")
        ours = image_id == built.image_id and current
        return StageCell("yes" if ours else "old", text)

    verified, exported = record.verified, record.exported
    checks = f"{verified.passed} checks" if verified else ""
    if verified and verified.deselected:
        checks += f", {verified.deselected} need a GPU"
    cells["verified"] = cell(verified.image_id if verified else None, checks)
    cells["exported"] = cell(
        exported.image_id if exported else None,
        human_bytes(exported.size) if exported else "",
        there=facts.sqsh is not None and facts.sqsh.exists,
    )
    targets = ", ".join(sorted(record.pushed))
    ids = {pushed.image_id for pushed in record.pushed.values()}
    newest = built.image_id if built.image_id in ids else min(ids, default=None)
    cells["pushed"] = cell(newest, targets or name)
    return cells


def digest_cell(facts: ImageFacts) -> StageCell:
    """The digest of the base: what the next build stands on, and whether that has moved."""
    base, lock, built = facts.image.base, facts.base_lock, facts.record.built
    if base.registry is None:
        return StageCell("yes", "own")
    if lock is None or lock.digest is None:
        return StageCell("no", "not recorded")
    if built is not None and built.inputs.get("base") not in (None, lock.digest):
        return StageCell("old", "moved")
    return StageCell("yes", lock.digest.removeprefix("sha256:")[:12])


def next_command(name: str, stages: dict[str, StageCell], digest: StageCell) -> str:
    """The one command that makes the first thing true that is not."""
    if digest.state == "no":
        return f"./inv lock {name}"
    if all(cell.state == "yes" for cell in stages.values()):
        return ""
    missing = [stage for stage, cell in stages.items() if cell.state != "yes"]
    if len(missing) == 1:
        only = {"built": "build", "verified": "verify", "exported": "sqsh", "pushed": "push"}
        return f"./inv {only[missing[0]]} {name}"
    return f"./inv ship {name}"


def base_currency(base: Base, bases: Iterable[Base], today: date) -> Currency:
    """How far a base is behind, by versions.yaml alone."""
    end = base.end_of_patch
    kind = base.series.rpartition("-")[0]
    versions = {
        version
        for other in bases
        if other.series.rpartition("-")[0] == kind and other.flavour == base.flavour
        if (version := _version(other.facts.torch)) is not None
    }
    own = _version(base.facts.torch)
    newer = sum(version > own for version in versions) if own is not None and kind else 0
    return Currency(end.isoformat() if end else "", (end - today).days if end else None, newer)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
