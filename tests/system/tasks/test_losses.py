"""Whatever is lost between two runs, a plain `ship` makes it again: each part, and all pairs.

Of a tiny image without an engine; bench/losses.py does the same with the default image, and loses
the engine's data as well.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.limit_tasks import TASKS, Place, tiny_place
from bench.losses import lose_cache, lose_records, lose_registry, lose_sqsh
from slipway.core import Project


def lose_layouts(project: Project) -> None:
    shutil.rmtree(project.state / "layouts")


PARTS: tuple[Callable[[Project], None], ...] = (
    lose_cache,
    lose_records,
    lose_registry,
    lose_sqsh,
    lose_layouts,
)
ROWS = [row for number in (1, 2) for row in itertools.combinations(PARTS, number)]
(SHIP,) = (task for task in TASKS if task.name == "ship")


@pytest.fixture(scope="module")
def shipped() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="losses-") as folder, tiny_place(Path(folder)) as place:
        place.make_state()
        place.clone.inv("ship", place.image, "--no-engine")
        yield place
        place.drop_state()


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: "+".join(lose.__name__.removeprefix("lose_") for lose in row)
)
def test_a_plain_ship_makes_again_what_was_lost(
    shipped: Place, row: tuple[Callable[[Project], None], ...]
) -> None:
    for lose in row:
        lose(shipped.project)
    shipped.clone.inv("ship", shipped.image, "--no-engine")
    assert SHIP.done(shipped) == []
