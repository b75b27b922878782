"""What is derived and committed: Dockerfiles, the table of docs/images.md, the schema."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from slipway import matrix as matrix_room
from slipway.core import Project, SlipwayError, write_atomic
from slipway.derive.dockerfile import render_dockerfile
from slipway.derive.tables import markdown_table
from slipway.matrix import Image, Matrix
from slipway.records import Locks

BEGIN = "<!-- BEGIN images: written by `./inv generate` -->"
END = "<!-- END images -->"


def generated_dockerfiles(
    project: Project, matrix: Matrix, locks: Locks, images: Sequence[Image] = ()
) -> dict[Path, str]:
    """Path -> text of the Dockerfiles of these images, of all by default."""
    return {
        project.generated / image.name / "Dockerfile": render_dockerfile(
            image, locks, matrix.tools.values(), project.templates
        )
        for image in images or matrix.images
    }


def page_with_table(page: str, table: str) -> str:
    """The page's text with what stands between the markers replaced."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SlipwayError(
            f"the lines {BEGIN!r} and {END!r} are not in docs/images.md",
            cure="Put them back where the table of images belongs.",
        )
    return f"{head}{BEGIN}\n\n{table}\n{END}{tail}"


def expected_files(project: Project, matrix: Matrix, locks: Locks) -> dict[Path, str]:
    """Path -> text of everything that `generate` writes."""
    page = project.root / "docs" / "images.md"
    files = generated_dockerfiles(project, matrix, locks)
    files[page] = page_with_table(page.read_text(), markdown_table(matrix.images))
    # Not by name: its module loads pydantic, which no other use of this room needs.
    files[project.root / matrix_room.SCHEMA_FILE] = matrix_room.versions_schema()
    return files


def orphaned_files(project: Project, files: dict[Path, str]) -> list[Path]:
    """Generated Dockerfiles that no image of the matrix has any more."""
    return sorted(set(project.generated.glob("*/*")) - set(files))


def find_drift(project: Project, files: dict[Path, str]) -> list[str]:
    """Unified diffs from what is there to what should be; empty where nothing differs."""
    diffs = []
    for path, text in sorted(files.items()):
        there = path.read_text() if path.exists() else ""
        if there != text:
            name = path.relative_to(project.root).as_posix()
            lines = difflib.unified_diff(
                there.splitlines(keepends=True), text.splitlines(keepends=True), name, name
            )
            diffs.append("".join(lines))
    for path in orphaned_files(project, files):
        name = path.relative_to(project.root).as_posix()
        diffs.append(f"--- {name}\n+++ /dev/null\n(no image of this name in versions.yaml)\n")
    return diffs


def write_generated(project: Project, files: dict[Path, str]) -> tuple[int, int]:
    """Write what differs, remove orphans; gives how many of each."""
    written = 0
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            write_atomic(path, text)
            written += 1
    removed = orphaned_files(project, files)
    for path in removed:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return written, len(removed)
