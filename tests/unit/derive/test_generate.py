"""What is derived and committed agrees with versions.yaml, and drift is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.derive import generate
from slipway.matrix import load_matrix
from slipway.records import load_locks

ROOT = Path(__file__).parents[3]


def test_what_is_committed_is_what_versions_yaml_gives() -> None:
    project = Project.at(ROOT)
    files = generate.expected_files(project, load_matrix(project.versions), load_locks(project))
    assert generate.find_drift(project, files) == []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path, tmp_path / "state")
    generate.write_generated(made, wanted(made))
    return made


def wanted(project: Project) -> dict[Path, str]:
    return {
        project.generated / "a" / "Dockerfile": "FROM a\n",
        project.generated / "b" / "Dockerfile": "FROM b\n",
    }


def test_a_changed_file_is_shown_as_a_diff(project: Project) -> None:
    (project.generated / "a" / "Dockerfile").write_text("FROM other\n")
    (diff,) = generate.find_drift(project, wanted(project))
    assert "--- images/generated/a/Dockerfile" in diff
    assert "-FROM other\n+FROM a\n" in diff


def test_a_missing_file_is_drift(project: Project) -> None:
    (project.generated / "a" / "Dockerfile").unlink()
    (diff,) = generate.find_drift(project, wanted(project))
    assert "+FROM a\n" in diff


def test_an_orphan_is_drift_and_is_removed_by_the_next_write(project: Project) -> None:
    orphan = project.generated / "gone" / "Dockerfile"
    orphan.parent.mkdir()
    orphan.write_text("FROM gone\n")
    (diff,) = generate.find_drift(project, wanted(project))
    assert "images/generated/gone/Dockerfile" in diff
    assert generate.write_generated(project, wanted(project)) == (0, 1)
    assert not orphan.parent.exists()
    assert generate.find_drift(project, wanted(project)) == []


def test_the_page_of_images_keeps_all_but_the_table() -> None:
    readme = f"before\n{generate.BEGIN}\nold\n{generate.END}\nafter\n"
    new = generate.page_with_table(readme, "| new |\n")
    assert new == f"before\n{generate.BEGIN}\n\n| new |\n\n{generate.END}\nafter\n"


def test_a_page_without_markers_is_an_error_with_a_cure() -> None:
    with pytest.raises(SlipwayError, match="Put them back"):
        generate.page_with_table("no markers", "table")
