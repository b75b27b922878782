"""What holds for all unit tests."""

from tests.support import interrupts as interrupts
from tests.support import properties as properties
