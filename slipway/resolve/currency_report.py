"""versions.yaml compared with the tables of one release, and edited where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from slipway.core import Project, write_atomic
from slipway.matrix import CurrencyFinding, compare_with_tables, edit_versions, load_matrix


@dataclass(frozen=True)
class CurrencyReport:
    """What was found, and which of it a person has to do (all of it without `--write`)."""

    findings: tuple[CurrencyFinding, ...]
    left: tuple[CurrencyFinding, ...]

    @property
    def is_behind(self) -> bool:
        """Whether versions.yaml still lacks something."""
        return any(finding.is_arrears for finding in self.left)

    def lines(self) -> list[str]:
        """One sentence a finding, by kind."""
        written = [finding for finding in self.findings if finding not in self.left]
        lines = [f"written: {finding.sentence}" for finding in written]
        lines += [f"{finding.kind}: {finding.sentence}" for finding in self.left]
        return lines or ["versions.yaml says what the tables say"]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "behind": self.is_behind,
            "findings": [
                {
                    "kind": finding.kind,
                    "subject": finding.subject,
                    "sentence": finding.sentence,
                    "tags": dict(finding.published.tags) if finding.published else {},
                    "written": finding not in self.left,
                }
                for finding in self.findings
            ],
        }


def check_currency(
    project: Project, tables: Mapping[str, Mapping[str, Any]], on: date, *, write: bool = False
) -> CurrencyReport:
    """Compare, and with `write` edit versions.yaml; the edited file is checked before it is kept.

    Raises BadInputError for a versions.yaml that cannot be read.
    """
    matrix = load_matrix(project.versions)
    findings = compare_with_tables(matrix, tables, on)
    if not write:
        return CurrencyReport(findings, findings)
    before = project.versions.read_text("utf-8")
    after, left = edit_versions(before, matrix, findings)
    if after != before:
        write_atomic(project.versions, after)
        try:
            load_matrix(project.versions)
        except BaseException:
            write_atomic(project.versions, before)
            raise
    return CurrencyReport(findings, left)
