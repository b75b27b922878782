"""A real engine for all system tests, and small things to build on.

The engine's state is kept under .slipway/test between runs, so that a second run is quicker; no
test needs what an earlier run left there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine, connect, import_rootfs, start_daemon, stop_daemon
from tests.support import interrupts as interrupts
from tests.support import properties as properties
from tests.support.aws_calls import record_calls
from tests.support.shared_base import copy_shared_base
from tests.support.tiny import rootfs_tar

CHECKOUT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:
    """Hold every call to AWS to the operator's policy."""
    record_calls(config, CHECKOUT / "tests/unit")


@pytest.fixture(scope="session")
def shared_project() -> Project:
    """This checkout, with state of the tests' own."""
    state = Path(os.environ.get("SLIPWAY_TEST_STATE") or CHECKOUT / ".slipway" / "test")
    if base := os.environ.get("SLIPWAY_TEST_BASE"):
        copy_shared_base(Path(base), state)
    return Project(CHECKOUT, state)


@pytest.fixture(scope="session")
def engine(shared_project: Project) -> Iterator[Engine]:
    """The embedded engine, started for the session and stopped after it."""
    start_daemon(shared_project)
    connected = connect(shared_project, "embedded")
    yield connected
    connected.close()
    stop_daemon(shared_project)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """This checkout with fresh state."""
    return Project(CHECKOUT, tmp_path / "state")


@pytest.fixture(scope="session")
def tiny_base(engine: Engine) -> str:
    """A base image of a few megabytes with a shell in it."""
    reference = "slipway.test/tiny:1"
    import_rootfs(engine, io.BytesIO(rootfs_tar()), reference, changes=["CMD /bin/sh"])
    return reference
