from __future__ import annotations

import pytest

from slipway.verify.expectations import CheckedImage
from slipway.verify.findings import Distributions, dependency_problems


def test_packages_of_the_base_are_unchanged_except_those_that_are_listed(
    packages: Distributions, base_packages: Distributions, subject: CheckedImage
) -> None:
    ours, theirs = packages.versions, base_packages.versions
    moved = {
        name: f"{version} -> {ours.get(name, 'gone')}"
        for name, version in theirs.items()
        if ours.get(name) != version and name not in subject.may_move
    }
    assert moved == {}


def test_nothing_but_what_is_locked_was_added(
    packages: Distributions, base_packages: Distributions, subject: CheckedImage
) -> None:
    if subject.may_come is None:
        pytest.fail("the image's requirements are not locked: run `./inv lock`")
    new = packages.versions.keys() - base_packages.versions.keys()
    assert new - set(subject.may_come) == set()


def test_add_ons_have_the_version_that_is_stated(
    packages: Distributions, subject: CheckedImage
) -> None:
    stated = {
        addon["name"]: addon["version"]
        for addon in subject.cell["addons"]
        if addon["version"] and addon["name"] not in subject.tools
    }
    assert {name: packages.versions.get(name) for name in stated} == stated


def test_no_package_is_there_twice(packages: Distributions, base_packages: Distributions) -> None:
    assert packages.twice - base_packages.twice == set()


def test_requirements_are_met_as_well_as_in_the_base(
    packages: Distributions, base_packages: Distributions
) -> None:
    assert dependency_problems(packages) - dependency_problems(base_packages) == set()
