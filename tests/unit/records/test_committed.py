"""What is committed under images/lock, against the versions.yaml beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.matrix import Matrix, load_matrix
from slipway.records import BUILD, Locks, base_lock_key, load_locks, python_lock_keys

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix(CHECKOUT / "versions.yaml")


@pytest.fixture(scope="module")
def locks() -> Locks:
    return load_locks(Project.at(CHECKOUT))


def test_every_image_has_its_locks_and_no_lock_is_left_over(matrix: Matrix, locks: Locks) -> None:
    needed = {
        key: addon.requirements
        for image in matrix.images
        for addon, key in python_lock_keys(image, locks.bases)
    }
    own = {BUILD} | {base_lock_key(base) for base in matrix.bases if base.registry is None}
    assert set(locks.python) == set(needed) | own
    assert {key: locks.python[key].asked for key in needed} == needed
    assert {image.base.name for image in matrix.images} <= set(locks.bases)
    assert {name: lock.wheel for name, lock in locks.tools.items()} == {
        name: tool.wheel for name, tool in matrix.tools.items()
    }


def test_what_a_base_is_known_to_have_is_in_no_closure_for_it(matrix: Matrix, locks: Locks) -> None:
    for image in matrix.images:
        for addon, key in python_lock_keys(image, locks.bases):
            names = {pin.name for pin in locks.python[key].pins}
            assert "torch" not in names, f"{addon.name} of {image.name} brings a torch"


def test_locks_name_no_index_no_host_and_no_date() -> None:
    for path in sorted((CHECKOUT / "images" / "lock").rglob("*.*")):
        text = path.read_text()
        config = path.parent.name == "bases"  # a base's ENV may hold any text
        assert config or not re.search(r"https?://|file://|--index|--find-links", text), path
        assert config or not re.search(r"\b20\d\d-\d\d-\d\d\b", text), path
