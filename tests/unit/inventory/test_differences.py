"""What differs between two images, and which of two versions is the later one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from slipway.inventory import compare_inventories
from slipway.inventory.version_order import compare_versions
from slipway.records import ImageInventory, SystemPackage

EMPTY = ImageInventory("debian 12", "dpkg", {}, (), {}, ())


def image(**changes: Any) -> ImageInventory:
    return dataclasses.replace(EMPTY, **changes)


def package(name: str, version: str, architecture: str = "amd64") -> SystemPackage:
    return SystemPackage(name, version, architecture, name, version)


def test_packages_are_told_by_what_became_of_them() -> None:
    before = image(
        python={"torch": "2.8.0", "numpy": "2.0", "gone": "1", "odd": "1-git"},
        system=(package("libc6", "2.36-9"), package("zlib1g", "1:1.2")),
    )
    after = image(
        python={"torch": "2.10.0", "numpy": "2.0rc1", "new": "1", "odd": "2-git"},
        system=(package("libc6", "2.36-9+deb12u8"), package("zlib1g", "2.0")),
    )
    difference = compare_inventories(before, after)
    assert [str(change) for change in difference.packages] == [
        "python gone 1 (removed)",
        "python new 1 (added)",
        "python numpy 2.0 -> 2.0rc1 (down)",
        "python odd 1-git -> 2-git (changed)",
        "python torch 2.8.0 -> 2.10.0 (up)",
        "dpkg libc6 2.36-9 -> 2.36-9+deb12u8 (up)",
        "dpkg zlib1g 1:1.2 -> 2.0 (down)",
    ]
    assert [change.name for change in difference.downgrades] == ["numpy", "zlib1g"]


def test_packages_of_several_architectures_are_compared_each() -> None:
    before = image(system=(package("libc6", "1"), package("libc6", "1", "i386")))
    after = image(system=(package("libc6", "2"),))
    assert [str(change) for change in compare_inventories(before, after).packages] == [
        "dpkg libc6:amd64 1 -> 2 (up)",
        "dpkg libc6:i386 1 (removed)",
    ]


def test_several_versions_at_once_have_no_order() -> None:
    before = image(manager="rpm", system=(package("kernel", "1-1"), package("kernel", "2-1")))
    after = image(manager="rpm", system=(package("kernel", "2-1"), package("kernel", "3-1")))
    (change,) = compare_inventories(before, after).packages
    assert str(change) == "rpm kernel 1-1, 2-1 -> 2-1, 3-1 (changed)"


def test_environment_entrypoint_and_layers_are_compared() -> None:
    before = image(
        config={"Env": ["PATH=/bin", "OLD=1"], "Entrypoint": ["a", "b"], "Labels": {"x": "1"}},
        layers=(("sha256:1", 10), ("sha256:2", 20)),
    )
    after = image(
        config={"Env": ["PATH=/x:/bin"], "Entrypoint": ["c"], "Labels": {"x": "1"}},
        layers=(("sha256:1", 10), ("sha256:3", 5)),
    )
    difference = compare_inventories(before, after)
    assert [str(change) for change in difference.settings] == [
        "ENV OLD: 1 -> (none)",
        "ENV PATH: /bin -> /x:/bin",
        "Entrypoint: a b -> c",
    ]
    assert (difference.size_before, difference.size_after) == (30, 15)
    assert (difference.layers_shared, difference.layers_gone, difference.layers_new) == (
        1,
        (("sha256:2", 20),),
        (("sha256:3", 5),),
    )


def test_what_could_not_be_compared_is_said() -> None:
    rpms = image(manager="rpm", system=(package("glibc", "2"),))
    unknown = image(system=None, unknown=("packages of the distribution: unreadable",))
    debian = image(system=(package("libc6", "2"),))
    assert compare_inventories(debian, rpms).unknown == ("packages of dpkg and of rpm",)
    assert compare_inventories(debian, unknown).unknown == unknown.unknown
    assert compare_inventories(debian, unknown).packages == ()


@pytest.mark.parametrize(
    ("kind", "earlier", "later"),
    [
        # deb-version(7)
        ("dpkg", "1.0~beta1~svn1245", "1.0~beta1"),
        ("dpkg", "1.0~beta1", "1.0"),
        ("dpkg", "1.0-1", "1.0-1+b1"),
        ("dpkg", "1.9", "1.10"),
        ("dpkg", "9.9", "1:0.1"),
        ("dpkg", "1.0a", "1.0+"),
        ("dpkg", "2.36-9+deb12u7", "2.36-9+deb12u10"),
        ("dpkg", "1.2-3-1", "1.2-3-2"),
        # rpm.org, "RPM Version Comparison"
        ("rpm", "1.0010", "1.10.1"),
        ("rpm", "1.0~rc1", "1.0"),
        ("rpm", "1.0", "1.0^git1"),
        ("rpm", "1.0^git1", "1.0.1"),
        ("rpm", "2.0.1", "2.0.1a"),
        ("rpm", "1.0a", "1.0.1"),
        ("rpm", "1.0-9.amzn2023", "1.0-10.amzn2023"),
        ("python", "2.9.0", "2.10.0"),
        ("python", "2.0.dev1", "2.0"),
    ],
)
def test_versions_have_the_order_that_their_makers_gave_them(
    kind: str, earlier: str, later: str
) -> None:
    assert compare_versions(kind, earlier, later) == -1
    assert compare_versions(kind, later, earlier) == 1


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [("dpkg", "1.0", "1.00"), ("rpm", "1.0010", "1.10"), ("rpm", "fc_4", "fc.4")],
)
def test_versions_that_are_spelled_otherwise_are_as_late(kind: str, one: str, other: str) -> None:
    assert compare_versions(kind, one, other) == 0
