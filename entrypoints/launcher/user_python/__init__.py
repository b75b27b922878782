"""Scripts that run in the Python of the user's code. They import nothing of the launcher."""

from __future__ import annotations
