"""What processes of tests begin with, in place of making the default image themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.squashfs import layer_cache
from tests.support.clones import ROOT
from tests.support.shared_base import copy_shared_base

KEPT: dict[str, Callable[[Project], Path]] = {
    "what is fetched and built": lambda project: project.cache,
    "layers as a registry gets them": lambda project: project.packed,
    "layers as squashfs": lambda project: layer_cache(project).entry("0").parent,
    "the engine's images": lambda project: project.engine / "data",
}


@pytest.mark.parametrize("what", KEPT)
def test_nothing_that_took_long_to_make_is_made_again(what: str, tmp_path: Path) -> None:
    made, own = (Project(ROOT, tmp_path / name) for name in ("made", "own"))
    KEPT[what](made).mkdir(parents=True, exist_ok=True)
    (KEPT[what](made) / "file").write_text("made")
    copy_shared_base(made.state, own.state)
    assert (KEPT[what](own) / "file").read_text() == "made"


def test_what_a_state_has_already_stays(tmp_path: Path) -> None:
    made, own = (Project(ROOT, tmp_path / name) for name in ("made", "own"))
    for project in (made, own):
        project.cache.mkdir(parents=True)
        (project.cache / "file").write_text(project.state.name)
    copy_shared_base(made.state, own.state)
    assert (own.cache / "file").read_text() == "own"


def test_what_belongs_to_an_engine_that_ran_elsewhere_is_left_there(tmp_path: Path) -> None:
    made, own = (Project(ROOT, tmp_path / name) for name in ("made", "own"))
    for folder in (made.engine / "data", made.engine / "run", made.registry, made.records):
        folder.mkdir(parents=True)
    (made.engine / "dockerd.pid").touch()
    copy_shared_base(made.state, own.state)
    assert [path.name for path in own.engine.iterdir()] == ["data"]
    assert {path.name for path in own.state.iterdir()} == {"engine"}
