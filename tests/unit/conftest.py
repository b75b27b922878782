"""What holds for all unit tests."""

from pathlib import Path

import pytest

from tests.support import interrupts as interrupts
from tests.support import properties as properties
from tests.support.aws_calls import record_calls


def pytest_configure(config: pytest.Config) -> None:
    """Hold every call to AWS to the operator's policy."""
    record_calls(config, Path(__file__).parent)
