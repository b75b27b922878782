"""Records survive a round trip; a damaged one counts as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import Project
from slipway.records import BuildRecord, ImageRecord, PushRecord, load_record, save_record


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "state")
    record = ImageRecord(
        built=BuildRecord("b" * 64, {"base": "sha256:1"}, "repo:tag", "sha256:2", 3, 4.5),
        pushed={"local": PushRecord("sha256:2", "h/r:t", "sha256:3", "type", 5, 6.5)},
    )
    save_record(project, "image", record)
    assert load_record(project, "image") == record


@pytest.mark.parametrize("content", ["", "{", '{"built": {"unknown": 1}}', "[]", '{"built": null}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    project = Project(tmp_path, tmp_path / "state")
    project.records.mkdir(parents=True)
    (project.records / "image.json").write_text(content)
    assert load_record(project, "image") == ImageRecord()
