"""Layers in grains: what one changed wheel of thirty moves, and how many layers there are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.append.grains import MOST_LAYERS, OWN_LAYER_BYTES, wheel_grains
from slipway.append.layer_blobs import LayerStore
from slipway.append.layer_files import LayerPlan
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import InstalledWheel, install_wheel
from tests.support.wheels import make_wheel

LAYOUT = PythonLayout("/opt/venv/bin/python", "3.12")


def wheel_of(name: str, size: int) -> InstalledWheel:
    return InstalledWheel(name, "1", (), (), size, "")


sizes = st.lists(st.integers(0, 3 * OWN_LAYER_BYTES), max_size=130)


@given(st.lists(sizes, max_size=3), st.integers(0, MOST_LAYERS - 4))
def test_every_wheel_has_one_place_and_layers_stay_within_the_limit(
    addons: list[list[int]], others: int
) -> None:
    wheels = [
        [wheel_of(f"{number}-{at}", size) for at, size in enumerate(listed)]
        for number, listed in enumerate(addons)
    ]
    grains = wheel_grains([(listed, []) for listed in wheels], others)
    for listed, groups in zip(wheels, grains, strict=True):
        placed = [wheel.name for group in groups for wheel in group]
        assert sorted(placed) == sorted(wheel.name for wheel in listed)
        assert all(groups)
    assert sum(map(len, grains)) + others <= MOST_LAYERS


def test_what_was_asked_for_comes_last_and_small_ones_share() -> None:
    large, small = 2 * OWN_LAYER_BYTES, 10
    wheels = [
        wheel_of("asked", large),
        wheel_of("b", small),
        wheel_of("a", small),
        wheel_of("c", 2 * large),
        wheel_of("d", large),
    ]
    ((*lower, last),) = wheel_grains([(wheels, ["asked"])], 5)
    assert [[wheel.name for wheel in group] for group in lower] == [["c"], ["d"], ["a", "b"]]
    assert [wheel.name for wheel in last] == ["asked"]


@pytest.mark.parametrize("changed", [0, 7, 29])
def test_one_changed_wheel_of_thirty_moves_its_own_bytes(tmp_path: Path, changed: int) -> None:
    def layers(number: int) -> dict[str, int]:
        noise = random.Random(1)
        wheels = []
        for at in range(30):
            content = noise.randbytes(OWN_LAYER_BYTES + 10_000 * at)
            if at == changed:
                content = content[:-1] + bytes([number])
            path = make_wheel(tmp_path / str(number), f"w{at}", {f"w{at}.bin": content})
            wheels.append(install_wheel(path, f"w{at}", LAYOUT))
        (groups,) = wheel_grains([(wheels, [])], 60)
        store = LayerStore(tmp_path / "store")
        plans = [
            LayerPlan(str(at), tuple(file for wheel in group for file in wheel.files))
            for at, group in enumerate(groups)
        ]
        blobs = [store.layer(plan) for plan in plans]
        sizes_of[number] = wheels[changed].size
        return {blob.digest: blob.size for blob in blobs}

    sizes_of: dict[int, int] = {}
    before, after = layers(1), layers(2)
    moved = sum(size for digest, size in after.items() if digest not in before)
    assert moved == pytest.approx(sizes_of[2], rel=0.05)
