"""`inv plan`: what a build would do and why, and what it needs from outside. Changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway import registry
from slipway.core import SlipwayError, UsageError, free_bytes, human_bytes
from slipway.derive import DiskNeed, Note, PlanStep, disk_need, grouped_notes
from slipway.engine import daemon_status
from slipway.matrix import image_uri, images_below, select_images
from slipway.pipeline import appended, targets
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings

if TYPE_CHECKING:
    from slipway.pipeline.appended import AppendedDisk
    from slipway.registry import Target


@dataclass(frozen=True)
class PlanReport:
    """A plan with what it needs from outside: logins and disk."""

    steps: tuple[PlanStep, ...]
    logins: tuple[str, ...]
    unreachable: tuple[Note, ...]
    disk: DiskNeed
    free: int | None
    appended: AppendedDisk | None = None  # for builds without an engine

    def rows(self) -> list[tuple[str, str, str]]:
        """For a table."""
        return [(step.image.name, step.action, "; ".join(step.because)) for step in self.steps]

    def notes(self) -> list[str]:
        """What a person should know beside the table."""
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.action] = counts.get(step.action, 0) + 1
        lines = [", ".join(f"{count} {action}" for action, count in sorted(counts.items()))]
        lines.append(f"logins: {', '.join(self.logins) or 'none'}")
        lines += self.appended.notes() if self.appended else self._engine_disk()
        notes = [note for step in self.steps for note in step.notes]
        return lines + grouped_notes([*self.unreachable, *notes])

    def _engine_disk(self) -> list[str]:
        free = "unknown" if self.free is None else human_bytes(self.free)
        lines = [f"disk: about {human_bytes(self.disk.needed)} needed, {free} free"]
        if self.disk.unknown:
            count = len(self.disk.unknown)
            lines.append(
                f"  plus {count} base{'s' if count > 1 else ''} whose size no lock records "
                "(a DLC base takes about 20 GB)"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """For a program: `include` is a CI job matrix of what is to be done."""
        return {
            "include": [
                {
                    "image": step.image.name,
                    "action": step.action,
                    "because": list(step.because),
                    "build_id": step.build_id,
                    "layers": list(step.layers),
                    "notes": [note.text for note in step.notes],
                }
                for step in self.steps
            ],
            "logins": list(self.logins),
            "disk": self._disk_json(),
        }

    def _disk_json(self) -> dict[str, Any]:
        if self.appended is None:
            return {"needed": self.disk.needed, "free": self.free}
        return {"needed": self.appended.fullest, **dataclasses.asdict(self.appended)}


def _ask_target(
    checkout: Checkout, settings: Settings, steps: tuple[PlanStep, ...]
) -> tuple[tuple[PlanStep, ...], Note | None]:
    """The steps, with what the target has told of those that would build.

    A plan fails for no network: a target that cannot be asked is a note. A local registry that does
    not run has nothing to say.
    """
    todo = {step.image.name: step for step in steps if step.action in ("build", "rebuild")}
    if not todo:
        return steps, None
    try:
        target = _running_target(checkout, settings)
        if target is None:
            return steps, None
        shared = targets.find_shared_images(
            [targets.WantedBuild(step.image, step.build_id) for step in todo.values()],
            checkout.matrix,
            target,
            registry.credentials_for([target], checkout.project),
            registry.RetryPolicy(attempts=1),
        )
    except SlipwayError as error:
        return steps, Note(settings.target, f"the target was not asked ({error.what})")
    return tuple(
        dataclasses.replace(
            step, action="in the registry", because=(shared[step.image.name].by_digest,)
        )
        if step.image.name in shared
        else step
        for step in steps
    ), None


def _running_target(checkout: Checkout, settings: Settings) -> Target | None:
    if settings.target == "local":
        if not checkout.project.registry.is_dir():
            return None
        status = registry.local_registry_status(checkout.project)
        return status.target if status.running else None
    return registry.find_ecr_target(settings.region) if settings.region else None


def plan_images(
    root: Path,
    settings: Settings,
    names: Sequence[str],
    today: date,
    *,
    no_engine: bool = False,
    base_from: str = "",
) -> PlanReport:
    """The plan for the images named (all by default).

    Needs no Docker, no AWS, no network; a target that can be asked says what it has already.
    `no_engine`: what builds without an engine take on the disk, in place of the engine's; bases
    that can be asked say their sizes.
    """
    checkout = Checkout.at(root)
    images = select_images(checkout.matrix, names)
    images = (*images_below(images), *images)
    if base_from and not no_engine:
        raise UsageError("--base-from is for plans with --no-engine", cure="Leave it out.")
    inputs = checkout.inputs(images)
    steps, silent_target = _ask_target(
        checkout, settings, checkout.plan(images, inputs, checkout.records(images), today)
    )
    without = None
    if no_engine:
        appended.check_one_base(images, base_from)
        logins_of = registry.credentials_for()
        sources = appended.BaseSources(checkout, settings.region, base_from, logins_of)
        without = appended.appended_disk(checkout, settings, steps, inputs, sources)
    todo = [step for step in steps if step.action != "up to date"]
    logins: set[str] = set()
    unreachable = {silent_target} if silent_target else set()
    for base in {step.image.base.root.name: step.image.base.root for step in todo}.values():
        if base.registry is None:
            continue
        try:
            uri = image_uri(base.registry, settings.region, base.repository, base.tag)
        except SlipwayError:
            where = f"in {settings.region}" if settings.region else "without --region"
            unreachable.add(Note(base.name, f"cannot be reached {where}"))
        else:
            logins |= {uri.login_host} if uri.login_host else set()
    status = daemon_status(checkout.project)
    return PlanReport(
        steps,
        tuple(sorted(logins)),
        tuple(sorted(unreachable)),
        disk_need(steps, checkout.locks.bases),
        free_bytes(status.data_root),
        without,
    )
