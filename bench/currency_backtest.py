"""Would `inv matrix.currency` have found each new image when it came? Over all releases of a year.

    .venv/bin/python -m bench.currency_backtest             # two minutes; the package index of pip
    .venv/bin/python -m bench.currency_backtest --wheels DIR  # releases that are there already

Starts with a versions.yaml that has what the first release listed, then takes the releases in
their order, each with `--write`, and holds what is proposed to what the tables themselves gained:
every new version of our families once, at the first release that carries it, and nothing else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from packaging.version import Version

from slipway.core import Project
from slipway.matrix import (
    TRAINING_TABLES,
    LeftOut,
    entry_block,
    is_left_out,
    load_matrix,
    published_images,
)
from slipway.resolve import (
    PACKAGE,
    ImageTables,
    check_currency,
    fetch_image_tables,
    read_image_tables,
)

ROOT = Path(__file__).parents[1]


def releases(wheels: Path | None) -> Iterator[ImageTables]:
    """Every release that carries tables, oldest first."""
    if wheels is not None:
        found = {path.name.split("-")[1]: path for path in wheels.glob("*.whl")}
        for version in sorted(found, key=Version):
            yield read_image_tables(found[version])
        return
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", PACKAGE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    versions = re.findall(r"\d+\.\d[\d.]*", listed.partition("Available versions:")[2])
    for version in sorted({v for v in versions if Version(v) >= Version("2.0")}, key=Version):
        yield fetch_image_tables(version)


def listed_titles(tables: Mapping[str, Any], left_out: tuple[LeftOut, ...]) -> set[str]:
    """Titles of our families' versions in the tables, read apart from the comparison."""
    published, _ = published_images(tables)
    return {
        image.title
        for image in published
        if image.table in TRAINING_TABLES and not is_left_out(left_out, image)
    }


def first_file(project: Project, tables: Mapping[str, Any]) -> None:
    """versions.yaml with the series of the first release, and the one group that needs none."""
    text = (ROOT / "versions.yaml").read_text()
    matrix = load_matrix(ROOT / "versions.yaml")
    report = check_currency(Project(ROOT, ROOT), tables, date(2025, 11, 1))
    gone = {finding.subject for finding in report.findings if finding.kind == "gone"}
    if "pytorch-amzn2023" not in tables:
        gone |= {base.series for base in matrix.bases if base.repository == "pytorch"}
        gone |= {base.series for base in matrix.waiting if base.repository == "pytorch"}
    for name in gone:
        text = without_block(text, "bases", name)
    families = {base.family.name for base in matrix.bases}
    kept = {base.family.name for base in matrix.bases if base.series not in gone}
    for name in families - kept:
        text = without_block(text, "families", name)
    for group in {image.group for image in matrix.images} - {"local", "local-plain"}:
        text = without_block(text, "images", group)
    project.versions.write_text(text)


def without_block(text: str, section: str, name: str) -> str:
    """The text without one entry of a section."""
    block = entry_block(text, section, name)
    assert block, name
    return text[: block.start()] + text[block.end() :]


def main() -> None:
    """Print the table; fail where a proposal is missing, late, repeated or wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path)
    options = parser.parse_args()
    left_out = load_matrix(ROOT / "versions.yaml").left_out
    wrong = 0
    proposed: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), Path(folder))
        known: set[str] | None = None
        print(f"{'release':8} {'tables':>6} {'new':>4} {'tables new or otherwise':24} proposed")
        for release in releases(options.wheels):
            titles = listed_titles(release.tables, left_out)
            if known is None:
                first_file(project, release.tables)
                known = titles
            report = check_currency(project, release.tables, date(2025, 11, 1), write=True)
            new = {finding.subject for finding in report.findings if finding.kind == "new"}
            tables = [finding.subject for finding in report.findings if finding.kind == "table"]
            wrong += new != titles - known or bool(new & proposed)
            proposed |= new
            known |= titles
            words = f"{len(tables)}: {', '.join(tables)[:20]}" if tables else "-"
            shown = ", ".join(sorted(new)) or "-"
            print(f"{release.version:8} {len(release.tables):6} {len(new):4} {words:24} {shown}")
    print(f"{len(proposed)} proposed once each, {wrong} releases with a wrong or missing proposal")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
