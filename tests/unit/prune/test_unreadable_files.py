"""What cannot be read stays, is named, and keeps nothing else from being removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import EntryFaults, Project, SlipwayError
from slipway.engine import EngineError
from slipway.prune import engine_images, removals
from slipway.records import ExportRecord, ImageRecord, Locks, save_record

NO_LOCKS = Locks({}, {}, {})


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With two builds' exports of two images, a compiled layer and a wheel, all of them old."""
    project = Project(tmp_path, tmp_path / "state")
    for image in ("a", "b"):
        for build in (1, 2):
            newest = old_file(project.sqsh / f"{image}-{build}.sqsh")
        exported = ExportRecord("id", str(newest), "sha", 1000, 1.0)
        save_record(project, image, ImageRecord(exported=exported))
    old_file(project.sqsh / "layers/layers/key/data")
    os.utime(project.sqsh / "layers/layers/key", (1, 1))
    old_file(project.cache / "wheels/old.whl")
    return project


def going(project: Project, faults: EntryFaults) -> set[str]:
    steps = removals.plan_removals(project, None, NO_LOCKS, 86400, faults)
    return {Path(item.name).name for step in steps for item in step.items}


WHOLE = {"a-1.sqsh", "b-1.sqsh", "layers", "old.whl"}
DAMAGES: dict[str, tuple[Callable[[Project], object], set[str], str]] = {
    # What is done to the files, what goes then, and what is named.
    "a damaged record": (
        lambda project: (project.records / "a.json").write_bytes(b"{"),
        WHOLE - {"a-1.sqsh"},
        "a.json: this record cannot be read",
    ),
    "a record of another version": (
        lambda project: (project.records / "a.json").write_bytes(b'{"built": {"x": 1}}'),
        WHOLE - {"a-1.sqsh"},
        "a.json: this record cannot be read",
    ),
    "a file among the compiled layers": (
        lambda project: old_file(project.sqsh / "layers/layers/stray"),
        WHOLE,
        "",
    ),
    "a link to nowhere": (
        lambda project: (project.cache / "wheels/gone.whl").symlink_to("nowhere"),
        WHOLE,
        "",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_one_file_that_cannot_be_read_hides_no_other(project: Project, case: str) -> None:
    assert going(project, EntryFaults()) == WHOLE
    damage, goes, told = DAMAGES[case]
    damage(project)
    faults = EntryFaults()
    assert going(project, faults) == goes
    if not told:
        faults.raise_any()
        return
    with pytest.raises(SlipwayError, match=told) as raised:
        faults.raise_any()
    assert raised.value.exit_code == 1


def test_an_image_that_the_engine_cannot_describe_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def df(self) -> dict[str, object]:
            images = [
                {"Id": f"id-{n}", "RepoTags": [f"image:{n}"], "Created": 1, "Size": 10}
                for n in range(3)
            ]
            return {"Images": images}

        def containers(self, *, all: bool) -> list[dict[str, str]]:
            return []

    def inspect(_: object, image: str) -> dict[str, object]:
        if image == "id-1":
            raise EngineError("looking up id-1 failed: no such layer", where="engine")
        return {}

    monkeypatch.setattr(engine_images, "inspect_image", inspect)
    faults = EntryFaults()
    engine: Any = SimpleNamespace(client=SimpleNamespace(api=Api()), answers=lambda: True)
    steps = engine_images.image_steps(engine, NO_LOCKS, 100.0, faults)
    assert [item.name for item in steps[1].items] == ["image:0", "image:2"]
    with pytest.raises(SlipwayError, match="no such layer"):
        faults.raise_any()
