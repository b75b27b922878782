"""Which system packages a set of images needs, and bringing their locks up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from slipway.core import Project, SlipwayError
from slipway.matrix import Archive, Base, Image, SystemPackages, archives_of
from slipway.records import PackageDatabase, SystemLock, system_lock_keys
from slipway.resolve.system_packages.apt_resolver import resolve_with_apt
from slipway.resolve.system_packages.dnf_resolver import resolve_with_dnf
from slipway.resolve.system_packages.resolution import PackageAnswer, PackageQuestion
from slipway.wheels import fetch_packages


@dataclass(frozen=True)
class BaseState:
    """What is installed in a base: a name for all of it, and who tells.

    `database` raises SlipwayError where it is not known.
    """

    identity: str
    database: Callable[[Base], PackageDatabase]


@dataclass(frozen=True)
class SystemWant:
    """One lock file to have. `below` is the key of the layer under it, on the same base."""

    key: str
    addon: str
    base: Base
    asked: SystemPackages
    archives: tuple[Archive, ...]
    below: tuple[str, ...] = ()


def system_wants(
    images: Iterable[Image], archives: Mapping[str, Archive]
) -> tuple[SystemWant, ...]:
    """The system packages of all these images, lower layers first."""
    wants: dict[str, SystemWant] = {}
    for image in images:
        below: tuple[str, ...] = ()
        for addon, key in system_lock_keys(image):
            assert addon.system is not None
            chosen = archives_of(archives.values(), image.base, addon.system.archives)
            wants[key] = SystemWant(key, addon.name, image.base, addon.system, tuple(chosen), below)
            below = (*below, key)
    return tuple(sorted(wants.values(), key=lambda want: (len(want.below), want.key)))


def update_system_lock(
    project: Project,
    want: SystemWant,
    done: Mapping[str, SystemLock],
    state: BaseState,
    *,
    upgrade: bool = False,
) -> SystemLock:
    """The lock for `want`; the one in `done` where nothing that decides it has changed.

    `state` is the base's. Raises SlipwayError where it cannot be resolved, or moves what the base
    has without a reason.
    """
    lower = [package for key in want.below for package in done[key].packages]
    given = _given(want, state.identity, [f"{p.name} {p.version} {p.sha256}" for p in lower])
    old = done.get(want.key)
    if (
        old
        and not upgrade
        and (old.addon, old.asked, old.given)
        == (
            want.addon,
            want.asked.names,
            given,
        )
    ):
        return old
    archives = {archive.name: archive for archive in want.archives}
    question = PackageQuestion(
        on=want.base.name,
        system=want.base.facts.os,
        architecture=want.base.facts.architecture,
        names=want.asked.names,
        database=state.database(want.base),
        archives=want.archives,
        below=tuple(fetch_packages(project, lower, archives)),
    )
    answer = _resolve(project, question)
    _refuse_moves(want, answer)
    return SystemLock(
        want.key, want.addon, want.asked.names, given, answer.packages, answer.removed
    )


def _resolve(project: Project, question: PackageQuestion) -> PackageAnswer:
    if question.database.manager == "dpkg":
        return resolve_with_apt(project, question)
    return resolve_with_dnf(project, question)


def _refuse_moves(want: SystemWant, answer: PackageAnswer) -> None:
    """What the base has stays as it is, unless the add-on says why not."""
    moves = {
        **answer.moved,
        **dict.fromkeys(answer.removed, "removed"),
    }
    unsaid = {name: how for name, how in moves.items() if name not in want.asked.moves}
    if unsaid:
        listed = ", ".join(f"{name} ({how})" for name, how in sorted(unsaid.items()))
        raise SlipwayError(
            f"{want.addon} on {want.base.name} would move what the base has: {listed}",
            cure="Say why that may be, for each of them, under `system: {moves: {NAME: REASON}}` "
            f"of {want.addon} in versions.yaml; or ask for versions that fit, or take a newer "
            "digest of the base.",
        )


def _given(want: SystemWant, identity: str, lower: list[str]) -> str:
    """Hash over everything but the names that decides the packages; no address is in it."""
    archives = [
        [archive.name, archive.key, list(archive.suites[want.base.facts.os]), *archive.components]
        for archive in want.archives
    ]
    content = [identity, archives, lower, sorted(want.asked.moves)]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
