from __future__ import annotations

from slipway.engine import Engine
from slipway.verify import check_containers
from slipway.verify.expectations import CheckedImage


def test_files_of_the_repository_are_there_as_they_are(
    engine: Engine, container: str, subject: CheckedImage
) -> None:
    paths = sorted(subject.files)
    there = check_containers.file_states(engine, container, subject.python, paths)
    expected = {path: [f.sha256, f.mode, f.owner] for path, f in subject.files.items()}
    assert {path: there[path] for path in paths} == expected
