"""What holds for all unit tests."""

from tests.support import properties as properties
