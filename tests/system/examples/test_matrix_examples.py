"""The examples of versions.d that can be built here: on the local base, and verified.

The others need bases, indexes or hardware that are not here; their page says what.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import Engine
from tests.support.clones import Clone

EXAMPLES = ("base", "built", "files", "packages", "requirements", "settings", "system")


@pytest.mark.usefixtures("engine")
def test_images_of_the_examples_are_what_the_examples_say(
    engine: Engine, shared_project: Project, tmp_path: Path
) -> None:
    assert engine.embedded
    clone = Clone.make(tmp_path / "clone", shared_project.state)
    (clone.root / "versions.d").mkdir(exist_ok=True)
    for name in EXAMPLES:
        shutil.copy(clone.root / "examples" / "matrix" / f"{name}.yaml", clone.root / "versions.d")
    images = ("local-ds0.19.8", "ours", "built", "project", "system")
    clone.inv("lock", *images)
    clone.inv("generate")
    clone.inv("generate", "--check")
    clone.inv("build", *images)
    chosen = "requested or files or built or own_check or identity or system"
    clone.inv("verify", *images, "--only", chosen)
