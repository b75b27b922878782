"""Fixtures for the examples; test modules name this file in `pytest_plugins`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine
from tests.support.example_runs import EXAMPLES, Machine, Packages
from tests.support.launcher.containers import Fleet


@pytest.fixture(scope="session")
def packages(
    engine: Engine,
    local_image: str,
    shared_project: Project,
    tmp_path_factory: pytest.TempPathFactory,
) -> Packages:
    """The examples' packages, for the default image."""
    root = tmp_path_factory.mktemp("packages")
    return Packages.make(shared_project, engine, local_image, root)


@pytest.fixture
def machine(
    engine: Engine, local_image: str, packages: Packages, shared_project: Project, tmp_path: Path
) -> Iterator[Machine]:
    """A machine without checkpoints."""
    code = tmp_path / "examples"
    shutil.copytree(EXAMPLES, code, ignore=shutil.ignore_patterns("__pycache__"))
    # DeepSpeed's operator is compiled by the first run of these tests ever: over a minute.
    extensions = shared_project.cache / "test-torch-extensions"
    extensions.mkdir(parents=True, exist_ok=True)
    fleet = Fleet.make(engine, local_image, tmp_path / "machine", shared_project.cache, 1)
    yield Machine(fleet, packages, code, extensions)
    fleet.remove()
