"""The cached matrix is the one that versions.yaml gives, whatever happens to the cache."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

from slipway.core import BadInputError, Project
from slipway.matrix import Matrix, load_matrix, read_matrix

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copy(ROOT / "versions.yaml", tmp_path)
    return Project(tmp_path, tmp_path / "state")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every time that versions.yaml is really read."""
    seen: list[Path] = []

    def record(path: Path) -> Matrix:
        seen.append(path)
        return load_matrix(path)

    monkeypatch.setattr("slipway.matrix.load.load_matrix", record)
    return seen


def cache(project: Project) -> Path:
    return project.cache / "matrix.pickle"


def test_it_is_read_once_and_is_the_same(project: Project, loads: list[Path]) -> None:
    assert read_matrix(project) == read_matrix(project) == load_matrix(project.versions)
    assert len(loads) == 1


def test_a_change_of_the_file_is_seen(project: Project, loads: list[Path]) -> None:
    read_matrix(project)
    text = project.versions.read_text()
    project.versions.write_text(
        text.replace("repository_prefix: sagemaker", "repository_prefix: x")
    )
    assert read_matrix(project).repository_prefix.startswith("x")
    extra = project.root / "versions.d" / "mine.yaml"
    extra.parent.mkdir()
    extra.write_text("")
    read_matrix(project)
    assert len(loads) == 3


def test_an_error_is_told_each_time(project: Project) -> None:
    project.versions.write_text("nonsense: 1\n")
    for _ in range(2):
        with pytest.raises(BadInputError):
            read_matrix(project)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["HARM"])),)


@pytest.mark.parametrize("rights", [0o666, 0o664, 0o646])
def test_a_cache_that_others_may_write_is_not_read(
    rights: int,
    project: Project,
    loads: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    read_matrix(project)
    data = cache(project).read_bytes()
    cache(project).write_bytes(data[:32] + pickle.dumps(Harmful()))
    cache(project).chmod(rights)
    assert read_matrix(project) == load_matrix(project.versions)
    assert not (tmp_path / "harm").exists()
    assert len(loads) == 2


@pytest.mark.parametrize("cut", [0, 10, 32, 40, 1000, -1])
def test_a_damaged_cache_is_made_anew(cut: int, project: Project, loads: list[Path]) -> None:
    read_matrix(project)
    data = cache(project).read_bytes()
    cache(project).write_bytes(data[:cut])
    assert read_matrix(project) == load_matrix(project.versions)
    assert cache(project).read_bytes() == data
    assert len(loads) == 2


def test_where_nothing_can_be_written_it_is_read_all_the_same(project: Project) -> None:
    project.state.write_text("a file where the state folder would be")
    assert read_matrix(project) == load_matrix(project.versions)
