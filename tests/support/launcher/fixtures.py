"""Fixtures for containers of the local image; test modules name this file in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine
from slipway.records import load_record
from tests.support.clones import Clone
from tests.support.launcher.containers import Fleet, Make


@pytest.fixture(scope="session")
def local_image(
    engine: Engine, shared_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The default image with the launcher of this working tree."""
    assert engine.embedded
    clone = Clone.make(tmp_path_factory.mktemp("launch") / "clone", shared_project.state)
    clone.inv("build")
    (record,) = shared_project.records.glob("local-*.json")
    built = load_record(shared_project, record.stem).built
    assert built is not None
    return built.reference


@pytest.fixture
def fleet(
    engine: Engine, local_image: str, shared_project: Project, tmp_path: Path
) -> Iterator[Make]:
    """Makes nodes, and removes their containers in the end."""
    made: list[Fleet] = []

    def make(count: int) -> Fleet:
        made.append(Fleet.make(engine, local_image, tmp_path, shared_project.cache, count))
        return made[-1]

    yield make
    for one in made:
        one.remove()
