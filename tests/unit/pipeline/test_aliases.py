"""What is named wrongly is said before the target is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import EntryFaults, UsageError
from slipway.pipeline.targets import aliases

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "digest", ["", "latest", "sha256:", "sha256:12", "sha256:" + "A" * 64, "md5:" + "0" * 32]
)
@pytest.mark.parametrize("name", ["", "local-ds0.19.8"])
def test_what_is_no_digest_is_said_before_the_target_is_asked(name: str, digest: str) -> None:
    settings: Any = SimpleNamespace()  # has no target to ask
    with pytest.raises(UsageError, match="is no digest"):
        aliases.show_target_image(ROOT, settings, f"{name}@{digest}", EntryFaults())
