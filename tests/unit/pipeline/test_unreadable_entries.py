"""One thing that cannot be read hides none of the others, and what depends on it is not removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import UNREADABLE, EntryFaults, OnEvent, SlipwayError, silent
from slipway.matrix import Image, image_tag, repository_name, select_images
from slipway.pipeline import Checkout
from slipway.pipeline.targets import aliases, target_prune
from slipway.registry import (
    ENTRY_FAULTS,
    NoCredentialsError,
    RegistryUnavailableError,
    Target,
    ThrottledError,
)

ROOT = Path(__file__).parents[3]
CHECKOUT = Checkout.at(ROOT)
SETTINGS: Any = SimpleNamespace()
ONE = select_images(CHECKOUT.matrix, ["local-ds0.19.8"])[0]
OTHER = select_images(CHECKOUT.matrix, ["smp-2.5-hyperpod"])[0]


def path_of(image: Image) -> str:
    return repository_name(image, CHECKOUT.matrix.repository_prefix)


def tag_of(image: Image, number: int) -> str:
    return image_tag(image, f"{number:012x}" * 6)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


@dataclass
class StubRegistry:
    """A client of a registry in memory: repository -> tag -> digest, and what it fails at."""

    host: str = "registry.test"
    tagged: dict[str, dict[str, str]] = field(default_factory=dict)
    broken: dict[str, SlipwayError] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def _ask(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    def name(self, path: str, tag: str | None = None) -> str:
        return f"{self.host}/{path}" + (f":{tag}" if tag else "")

    def tags(self, path: str) -> list[str]:
        self._ask(path)
        return sorted(self.tagged.get(path, {}))

    def head(self, path: str, tag: str) -> str | None:
        self._ask(f"{path}:{tag}")
        return self.tagged.get(path, {}).get(tag)

    def referrers(self, path: str, digest: str) -> list[str]:
        self._ask(f"{path}@{digest}")
        return []

    def delete_manifest(self, path: str, digest: str) -> bool:
        self._ask(f"remove {digest}")
        self.removed.append(digest)
        return True


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> StubRegistry:
    """Two repositories, each with three old builds of an image and an alias of the third."""
    stub = StubRegistry()
    for start, image in ((0, ONE), (10, OTHER)):
        tags = {tag_of(image, number): digest(start + number) for number in (1, 2, 3)}
        stub.tagged[path_of(image)] = {**tags, image.aliases[0]: digest(start + 3)}

    @contextlib.contextmanager
    def open_target(*_: object) -> Iterator[tuple[Target, StubRegistry, OnEvent]]:
        yield Target("local", "local", stub.host), stub, silent

    for module in (aliases, target_prune):
        monkeypatch.setattr(module, "open_target", open_target)
    return stub


def listed(faults: EntryFaults) -> dict[tuple[str, str], str]:
    names = [ONE.name, OTHER.name]
    tags = aliases.list_target(ROOT, SETTINGS, names, faults)
    return {(tag.repository, tag.tag): tag.digest for tag in tags}


def pruned(faults: EntryFaults, *, apply: bool) -> list[str]:
    names = [ONE.name, OTHER.name]
    builds = target_prune.prune_target(ROOT, SETTINGS, names, faults, apply=apply)
    return sorted(build.digest for build in builds)


@pytest.mark.parametrize("kind", ENTRY_FAULTS)
@pytest.mark.parametrize("what", ["build", "alias"])
def test_a_tag_that_cannot_be_read_is_named_beside_the_others(
    registry: StubRegistry, what: str, kind: type[SlipwayError]
) -> None:
    whole = listed(EntryFaults())
    assert len(whole) == 8
    tag = ONE.aliases[0] if what == "alias" else tag_of(ONE, 2)
    registry.broken[f"{path_of(ONE)}:{tag}"] = kind("status 500", where=f"at/{tag}")
    faults = EntryFaults()
    assert listed(faults) == {**whole, (path_of(ONE), tag): UNREADABLE}
    with pytest.raises(SlipwayError, match=f"at/{tag}: status 500") as raised:
        faults.raise_any()
    assert raised.value.exit_code == 1


def test_a_repository_that_cannot_be_read_hides_no_other(registry: StubRegistry) -> None:
    registry.broken[path_of(ONE)] = ENTRY_FAULTS[-1]("not allowed", where=path_of(ONE))
    faults = EntryFaults()
    assert {path for path, _ in listed(faults)} == {path_of(OTHER)}
    assert pruned(faults, apply=False) == [digest(11), digest(12)]
    with pytest.raises(SlipwayError, match=path_of(ONE)):
        faults.raise_any()


@pytest.mark.parametrize(
    "kind", [NoCredentialsError, ThrottledError, RegistryUnavailableError], ids=str
)
def test_what_is_wrong_with_the_whole_registry_ends_the_list(
    registry: StubRegistry, kind: type[SlipwayError]
) -> None:
    registry.broken[f"{path_of(ONE)}:{tag_of(ONE, 2)}"] = kind("of all")
    with pytest.raises(kind):
        listed(EntryFaults())


BOTH = [digest(11), digest(12)]  # of the other repository
UNREADABLE_AT_PRUNE = {
    # What is unreadable, and what of the first repository still goes.
    "an old build's tag": (f"{path_of(ONE)}:{tag_of(ONE, 1)}", [digest(2)]),
    "what refers to an old build": (f"{path_of(ONE)}@{digest(1)}", [digest(2)]),
    "an old build at its removal": (f"remove {digest(1)}", [digest(2)]),
    "an alias, which may name an old build": (f"{path_of(ONE)}:{ONE.aliases[0]}", []),
    "the list of tags": (path_of(ONE), []),
}


@pytest.mark.parametrize("case", UNREADABLE_AT_PRUNE)
def test_prune_removes_what_nothing_unreadable_may_need(registry: StubRegistry, case: str) -> None:
    assert pruned(EntryFaults(), apply=False) == [digest(1), digest(2), *BOTH]
    name, goes = UNREADABLE_AT_PRUNE[case]
    registry.broken[name] = ENTRY_FAULTS[0]("status 500", where=name)
    faults = EntryFaults()
    assert pruned(faults, apply=True) == sorted([*goes, *BOTH])
    assert sorted(registry.removed) == sorted([*goes, *BOTH])
    with pytest.raises(SlipwayError, match=r"status 500|cannot be read"):
        faults.raise_any()


def test_many_faults_are_told_once_each_and_not_without_end() -> None:
    faults = EntryFaults()
    faults.raise_any()
    for number in (*range(25), *range(25)):
        with faults.skip(SlipwayError):
            raise SlipwayError("status 500", where=f"tag-{number:02}")
    with pytest.raises(SlipwayError) as raised:
        faults.raise_any()
    lines = str(raised.value).splitlines()
    assert (lines[1], lines[-1], len(lines)) == ("tag-00: status 500", "and 5 more", 22)
