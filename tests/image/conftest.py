"""Checks of one image, run by `./inv verify NAME` with the plugin slipway.verify.plugin.

Each folder is a capability; slipway/verify/capabilities.py says which images have it, and why.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave all of it out of an ordinary pytest run: there is no image to look at."""
    del collection_path
    return None if config.pluginmanager.has_plugin("slipway.verify.plugin") else True
