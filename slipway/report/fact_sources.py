"""Where the facts come from: the checkout, its records, sidecars, check results, disks.

Reads and measures; starts nothing, and asks no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from slipway import __version__, engine, prune, storage
from slipway.core import EntryFaults, Project, SlipwayError
from slipway.derive import PlanStep
from slipway.matrix import Image, select_images
from slipway.pipeline import Checkout, Settings
from slipway.records import (
    BaseLock,
    ImageInventory,
    ImageLayers,
    ImageRecord,
    RecordedRun,
    load_image_layers,
    load_inventory,
    python_lock_keys,
    read_record,
    read_run_log,
)
from slipway.report.report_facts import (
    CheckResult,
    DiskFacts,
    ImageFacts,
    RemovableData,
    ReportFacts,
    SqshFacts,
    StoredData,
)
from slipway.sqsh import read_sidecar
from slipway.verify import may_move

OLDER_THAN = "30d"
"""As storage.prune's default."""

_MOST_RUNS = 100
_LONGEST = 2000  # characters of one text


class FactSources:
    """One checkout, looked at once. `problems` grows with what could not be read."""

    def __init__(self, root: Path, settings: Settings, today: date) -> None:
        self._checkout = Checkout.at(root)
        self._project = self._checkout.project
        self._settings = settings
        self._today = today
        self.problems: list[str] = []

    def facts(self, names: Sequence[str]) -> ReportFacts:
        """Of the images named (all by default). Raises UsageError for a name that is none."""
        images = select_images(self._checkout.matrix, names)
        records = {image.name: self._record(image.name) for image in images}
        steps = self._checkout.plan(images, self._checkout.inputs(images), records, self._today)
        known = tuple(
            self._image(image, step, records[image.name])
            for image, step in zip(images, steps, strict=True)
        )
        runs, disk = self._runs(), self._disk()
        return ReportFacts(self._today, __version__, known, runs, disk, tuple(self.problems))

    def _problem(self, error: SlipwayError) -> None:
        self.problems.append(str(error).replace("\n  ", ". "))

    def _record(self, name: str) -> ImageRecord:
        try:
            return read_record(self._project, name)
        except SlipwayError as error:
            self._problem(error)
            return ImageRecord()

    def _image(self, image: Image, step: PlanStep, record: ImageRecord) -> ImageFacts:
        locks = self._checkout.locks
        base_lock = locks.bases.get(image.base.name)
        keys = python_lock_keys(image, locks.bases)
        return ImageFacts(
            image=image,
            step=step,
            record=record,
            base_lock=base_lock,
            python=tuple((a.name, locks.python[key]) for a, key in keys if key in locks.python),
            base_inventory=self._inventory(base_lock),
            layers=self._layers(image.name),
            checks=self._checks(image.name) if record.verified else (),
            sqsh=self._sqsh(record),
            may_move=may_move(image),
        )

    def _inventory(self, base_lock: BaseLock | None) -> ImageInventory | None:
        try:
            return load_inventory(self._project, base_lock) if base_lock else None
        except SlipwayError as error:
            self._problem(error)
            return None

    def _layers(self, name: str) -> ImageLayers | None:
        try:
            return load_image_layers(self._project, name)
        except SlipwayError as error:
            self._problem(error)
            return None

    def _sqsh(self, record: ImageRecord) -> SqshFacts | None:
        if record.exported is None:
            return None
        path = Path(record.exported.path)
        try:
            sidecar = read_sidecar(path)
        except SlipwayError as error:
            self._problem(error)
            sidecar = None
        exists = path.is_file()
        if sidecar is None:
            exported = record.exported
            return SqshFacts(str(path), exported.size, exported.digest, 0, {}, (), exists)
        return SqshFacts(
            str(path),
            sidecar.size,
            sidecar.digest,
            sidecar.entries,
            sidecar.options,
            sidecar.hot,
            exists,
        )

    def _checks(self, name: str) -> tuple[CheckResult, ...]:
        path = self._project.logs / f"verify-{name}.xml"
        try:
            return read_checks(path)
        except SlipwayError as error:
            self._problem(error)
            return ()

    def _runs(self) -> tuple[RecordedRun, ...]:
        runs = []
        for path in sorted(self._project.runs.glob("*.jsonl"))[-_MOST_RUNS:]:
            try:
                run = read_run_log(path)
            except SlipwayError as error:
                self._problem(error)
                continue
            if run.unread:
                lines = ", ".join(map(str, run.unread[:5]))
                self.problems.append(f"{path}: {len(run.unread)} lines say nothing known: {lines}")
            runs.append(run)
        return tuple(runs)

    def _disk(self) -> DiskFacts | None:
        try:
            return measure_disks(self._project, self._settings, self._checkout)
        except SlipwayError as error:
            self._problem(error)
            return None


def read_checks(path: Path) -> tuple[CheckResult, ...]:
    """The checks of a JUnit file. Raises SlipwayError where it is none."""
    try:
        # Written by our own pytest; expat bounds what entities may grow to.
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))  # noqa: S314
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise SlipwayError(f"the results of checks cannot be read: {error}", where=str(path)) from (
            error
        )
    checks = []
    for case in cases:
        ends = [child for child in case if child.tag in ("failure", "error", "skipped")]
        state = "passed" if not ends else "skipped" if ends[0].tag == "skipped" else "failed"
        text = str(ends[0].get("message") or "")[:_LONGEST] if ends else ""
        try:
            seconds = float(case.get("time") or 0)
        except ValueError:
            seconds = 0.0
        name, place = str(case.get("name")), str(case.get("classname"))
        checks.append(CheckResult(name[:_LONGEST], place[:_LONGEST], state, seconds, text))
    return tuple(checks)


def measure_disks(project: Project, settings: Settings, checkout: Checkout) -> DiskFacts:
    """What storage.status and storage.prune say; an engine that does not run is not started."""
    daemon = storage.DockerDaemon.of(project, storage.Machine(), settings.engine)
    status = storage.inspect_storage(daemon, "auto")
    places = tuple(
        StoredData(
            place.what,
            str(place.path),
            f"{place.device} {place.file_system}",
            place.used,
            place.free,
            place.note,
        )
        for place in status.places
    )
    connected: engine.Engine | None = None
    try:
        connected = engine.connect(project, settings.engine, start=False)
        said = ""
    except SlipwayError as error:
        said = f"Images and build cache are not counted: {error.what}."
    try:
        age = prune.image_age(OLDER_THAN)
        faults = EntryFaults()
        steps = prune.plan_removals(project, connected, checkout.locks, age, faults)
    finally:
        if connected:
            connected.close()
    left_out = [f"Not counted: {error.where}: {error.what}." for error in faults.errors]
    said = " ".join(filter(None, [said, *left_out]))
    removable = tuple(
        RemovableData(step.what, item.name, item.size) for step in steps for item in step.items
    )
    return DiskFacts(places, removable, OLDER_THAN, said)
