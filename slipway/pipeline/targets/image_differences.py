"""`inv diff`: what differs between two images, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.core import EntryFaults, Reporter, SlipwayError, UsageError
from slipway.inventory import (
    SPDX_TYPE,
    Advisory,
    ImageDifference,
    LayeredImage,
    LayerNotes,
    compare_inventories,
    open_layered_image,
    read_advisories,
    read_bill,
    read_inventory,
)
from slipway.matrix import Base, image_uri, repository_name
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings
from slipway.pipeline.targets.aliases import current_tag, one_image, open_target
from slipway.records import ImageInventory, load_inventory
from slipway.registry import credentials_for, list_artefacts, read_artefact_file

_BASE = "base:"


class DowngradeError(SlipwayError):
    """A package of the second image is earlier than in the first."""


@dataclass(frozen=True)
class DifferenceReport:
    """What differs, and the known vulnerabilities of each of the two. `titles`: what made a layer,
    by its digest."""

    difference: ImageDifference
    titles: Mapping[str, str]
    advisories_before: tuple[Advisory, ...]
    advisories_after: tuple[Advisory, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """One line a difference, then one an advisory, for a person."""
        yield from self.difference.lines(self.titles)
        yield from self.advisory_lines()

    def advisory_lines(self) -> Iterator[str]:
        """What of the second image is known to be vulnerable, and what no longer is."""
        before = {(each.id, each.kind, each.package) for each in self.advisories_before}
        after = {(each.id, each.kind, each.package) for each in self.advisories_after}
        for each in self.advisories_after:
            word = "still" if (each.id, each.kind, each.package) in before else "new"
            yield f"{word}: {each}"
        for each in self.advisories_before:
            if (each.id, each.kind, each.package) not in after:
                yield f"gone: {each}"

    def require_no_downgrade(self) -> None:
        """Raises DowngradeError naming what is earlier in the second image."""
        down = [str(change) for change in self.difference.downgrades]
        if down:
            raise DowngradeError(
                f"{len(down)} packages have an earlier version: {'; '.join(down[:5])}",
                cure="Look at why; `./inv diff A B --allow-down` takes it.",
            )


def compare_images(
    root: Path, settings: Settings, before: str, after: str, osv: str = ""
) -> DifferenceReport:
    """Compare two images: NAME or NAME@sha256:... in the target, base:NAME, HOST/REPOSITORY:TAG,
    HOST/REPOSITORY@DIGEST, oci:FOLDER.

    `osv`: a folder with advisories. Raises UsageError for names that are none of these,
    RegistryError.
    """
    checkout = Checkout.at(root)
    titles: dict[str, str] = {}
    inventories = [_inventory(checkout, settings, name, titles) for name in (before, after)]
    advisories: list[list[Advisory]] = [[], []]
    if osv:
        advisories = read_advisories(Path(osv), inventories)
    difference = compare_inventories(*inventories)
    return DifferenceReport(difference, titles, tuple(advisories[0]), tuple(advisories[1]))


def _inventory(
    checkout: Checkout, settings: Settings, reference: str, titles: dict[str, str]
) -> ImageInventory:
    """What is in an image; what made its layers goes into `titles`."""
    project = checkout.project
    base = _named_base(checkout, reference)
    lock = checkout.locks.bases.get(base.name) if base else None
    if recorded := lock and load_inventory(project, lock):
        return recorded
    with Reporter() as reporter, _opened(checkout, settings, reference, base) as (image, python):
        titles.update(image.layer_titles)
        if billed := _billed_inventory(image):
            return billed
        notes = LayerNotes(project.cache, project.shared)
        return read_inventory(image, notes, reporter.on_event, python)


def _billed_inventory(image: LayeredImage) -> ImageInventory | None:
    """What a bill of materials beside the image says; None where there is none of ours."""
    if image.repository is None:
        return None
    for artefact in list_artefacts(image.repository, image.manifest.digest, EntryFaults()):
        if artefact.kind == SPDX_TYPE and artefact.files:
            bill = read_artefact_file(image.repository, artefact.files[0])
            if inventory := read_bill(bill, image):
                return inventory
    return None


def _named_base(checkout: Checkout, reference: str) -> Base | None:
    """The base that `base:NAME` means: one of that name, or that of an image of that name."""
    if not reference.startswith(_BASE):
        return None
    name = reference.removeprefix(_BASE)
    bases = {base.name: base for base in checkout.matrix.bases}
    return bases[name] if name in bases else one_image(checkout, name).base


@contextmanager
def _opened(
    checkout: Checkout, settings: Settings, reference: str, base: Base | None
) -> Iterator[tuple[LayeredImage, str]]:
    """The image and its interpreter, "" where that of its PATH is meant."""
    with ExitStack() as stack:
        credentials = credentials_for(project=checkout.project)
        facts, interpreter = None, ""
        if base is not None:
            if base.registry is None:
                raise UsageError(
                    f"{base.name} is made by Slipway, and lies in no registry",
                    cure="Name an image of it as HOST/REPOSITORY:TAG or oci:FOLDER.",
                )
            lock = checkout.locks.bases.get(base.name)
            digest = lock.digest if lock else None
            uri = image_uri(base.registry, settings.region, base.repository, base.tag, digest)
            reference, facts, interpreter = uri.reference, base.facts, base.family.python
        elif "/" not in reference:
            name, _, wanted = reference.partition("@")
            cell = one_image(checkout, name)
            target, _, _ = stack.enter_context(open_target(checkout, settings))
            path = repository_name(cell, checkout.matrix.repository_prefix)
            tag = f"@{wanted}" if wanted else f":{current_tag(checkout, cell)}"
            reference, credentials = (
                f"{target.host}/{path}{tag}",
                credentials_for([target], checkout.project),
            )
            facts, interpreter = cell.base.facts, cell.base.family.python
        architecture = facts.architecture if facts else "amd64"
        yield (
            stack.enter_context(open_layered_image(reference, credentials, architecture)),
            interpreter,
        )
