"""Which Python closures a set of images needs, and bringing the locks of them up to date."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name
from packaging.version import Version

from slipway.core import SlipwayError
from slipway.matrix import Architecture, Base, Image
from slipway.records import BUILD, GLIBC, BaseLock, Pin, PythonLock, base_lock_key, python_lock_keys
from slipway.resolve.base_stubs import stub_is_usable
from slipway.resolve.uv import NoSolutionError, ResolveRequest

_RULE = "wheels first"
"""How files are chosen. Locks that were made by another rule are made again."""

BUILD_REQUIREMENTS = ("pip", "setuptools", "wheel")


class Resolves(Protocol):
    """What a resolver does: slipway.resolve.uv.Resolver, or a test's own."""

    def resolve(self, question: ResolveRequest) -> tuple[Pin, ...]:
        """The pins that a question needs and that are not present."""


@dataclass(frozen=True)
class LockSetting:
    """Where one closure is used: on this base, with these packages that may not move."""

    on: str
    python: str
    present: Mapping[str, str]
    architecture: Architecture = "amd64"


@dataclass(frozen=True)
class ClosureRequest:
    """One lock file to have. `below` are the keys of the layers under it, lowest first."""

    key: str
    addon: str
    asked: tuple[str, ...]
    settings: tuple[LockSetting, ...]  # all the bases that share it
    below: tuple[str, ...] = ()
    wheels_only: bool = False  # nothing of it may have to be built
    index: str = ""  # one of its own, by name, beside pip's


def present_on(base: Base, lock: BaseLock | None) -> dict[str, str]:
    """What is known of a base's packages: all that were read, else what versions.yaml states."""
    if lock is not None and lock.packages is not None:
        return stub_is_usable(lock.packages)
    facts = {"torch": base.facts.torch, "transformers": base.facts.transformers}
    stated = {name: version for name, version in {**base.carries, **facts}.items() if version}
    return stub_is_usable(stated)


def base_want(base: Base) -> ClosureRequest:
    """The closure that a base of our own is made of: the CPU build of its torch, and numpy."""
    asked = ("numpy", f"torch=={base.facts.torch}+cpu")
    setting = LockSetting(base.name, base.facts.python, {}, base.facts.architecture)
    return ClosureRequest(base_lock_key(base), "torch", asked, (setting,))


def build_want(bases: Iterable[Base]) -> ClosureRequest:
    """What builds wheels: one lock that the oldest Python of all bases can use."""
    oldest = min((base.facts.python for base in bases), key=Version)
    setting = LockSetting(f"Python {oldest}", oldest, {})
    return ClosureRequest(BUILD, "build", BUILD_REQUIREMENTS, (setting,))


def addon_wants(
    images: Iterable[Image], bases: Mapping[str, BaseLock]
) -> tuple[ClosureRequest, ...]:
    """The closures of all Python add-ons of these images, lower layers first."""
    wants: dict[str, ClosureRequest] = {}
    for image in images:
        root = image.base.root
        below = keys_below(image.base, bases)
        for addon, key in python_lock_keys(image, bases):
            may_move = {*image.base.moves, *(_name(asked) for asked in addon.requirements)}
            present = {
                name: version
                for name, version in present_on(root, bases.get(root.name)).items()
                if name not in {canonicalize_name(moved) for moved in may_move}
            }
            facts = image.base.facts
            setting = LockSetting(root.name, facts.python, present, facts.architecture)
            shared = wants[key].settings if key in wants else ()
            if all(known.present != setting.present for known in shared):
                shared = (*shared, setting)
            wants[key] = ClosureRequest(
                key, addon.name, addon.requirements, shared, below, index=addon.index or ""
            )
            below = (*below, key)
    return tuple(sorted(wants.values(), key=lambda want: (want.key.count("_"), want.key)))


def keys_below(base: Base, bases: Mapping[str, BaseLock]) -> tuple[str, ...]:
    """The keys of the layers that a base has of images of the matrix, lowest first."""
    if base.image is None:
        return ()
    own = tuple(key for _, key in python_lock_keys(base.image, bases))
    return (*keys_below(base.image.base, bases), *own)


def update_closure(
    want: ClosureRequest,
    done: Mapping[str, PythonLock],
    resolver: Resolves,
    *,
    upgrade: bool = False,
) -> PythonLock:
    """The lock for `want`; the one in `done` where nothing that decides it has changed.

    `done` has the layers below already. Versions that still fit are kept unless `upgrade`. Raises
    SlipwayError for a conflict, or where bases that share the file need different versions.
    """
    old = done.get(want.key)
    # Of two layers with one package the upper one is what is there.
    below = tuple({pin.name: pin for key in want.below for pin in done[key].pins}.values())
    given = _given(want, below)
    same = old and (old.addon, old.asked, old.given, old.index) == (
        *(want.addon, want.asked),
        *(given, want.index),
    )
    if old and same and not upgrade:
        return old
    before = old.pins if old and not upgrade else ()
    resolved: dict[str, Pin] = {}
    for setting in want.settings:
        present = {**setting.present, **{pin.name: pin.version for pin in below}}
        preferred = tuple({**{pin.name: pin for pin in before}, **resolved}.values())
        question = ResolveRequest(
            want.asked,
            setting.python,
            setting.architecture,
            present,
            preferred,
            setting.on,
            (":all:",) if want.wheels_only else (),
            index=want.index,
        )
        for pin in resolve_with_wheels(resolver, question):
            if resolved.setdefault(pin.name, pin) != pin:
                raise SlipwayError(
                    f"{want.key}: {setting.on} needs {pin.name} {pin.version}, the other bases "
                    f"that share this closure {resolved[pin.name].version}",
                    cure="Lock that base with its packages known (`./inv lock` where the engine "
                    "has it), and it gets closures of its own.",
                )
    pins = tuple(sorted(resolved.values(), key=lambda pin: pin.name))
    return PythonLock(want.key, want.addon, pins, want.asked, given, want.index)


def resolve_with_wheels(resolver: Resolves, question: ResolveRequest) -> tuple[Pin, ...]:
    """The pins of a question, with a wheel wherever some version that fits has one.

    The newest release of a package may have dropped the wheels for an old Python: then its sdist
    has to be compiled in a base that need not have what that takes, where the release before it
    installs as it is. So each package that came out as an sdist is asked for again as a wheel, and
    stays an sdist only where no version with a wheel fits.
    """
    pins = resolver.resolve(question)
    refused: set[str] = set()
    while built := sorted({pin.name for pin in pins if pin.source} - refused):
        name, *_ = built
        narrower = dataclasses.replace(question, wheels_only=(*question.wheels_only, name))
        try:
            pins = resolver.resolve(narrower)
            question = narrower
        except NoSolutionError:
            refused.add(name)
    return pins


def _given(want: ClosureRequest, below: tuple[Pin, ...]) -> str:
    """Hash over everything but the requirements that decides a closure."""
    settings = sorted([*_runs_on(s), *_versions(s.present)] for s in want.settings)
    lower = _versions({pin.name: pin.version for pin in below})
    content = json.dumps([GLIBC, _RULE, settings, lower], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _runs_on(setting: LockSetting) -> list[str]:
    other = [] if setting.architecture == "amd64" else [setting.architecture]
    return [setting.python, *other]


def _versions(packages: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in sorted(packages.items())]


def _name(requirement: str) -> str:
    for end, character in enumerate(requirement):
        if not (character.isalnum() or character in "._-"):
            return requirement[:end]
    return requirement
