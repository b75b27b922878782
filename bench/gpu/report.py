"""What a part has found, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows for people; the figures behind them are in a result's `data`."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """As Markdown, so that it can be pasted into a page."""
        lines = [list(self.head), *map(list, self.rows)]
        widths = [max(len(line[n]) for line in lines) for n in range(len(self.head))]
        shown = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |"  # noqa: B905
                 for line in lines]  # fmt: skip
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"### {self.title}", "", shown[0], rule, *shown[1:]])


@dataclass
class Result:
    """Tables, figures, and what was not as it has to be: a part with problems has failed."""

    tables: list[Table] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def need(self, true: bool, problem: str) -> None:
        """Note a problem unless `true`."""
        if not true:
            self.problems.append(problem)


class NotHereError(Exception):
    """This part needs something that this machine, or this number of GPUs, has not got."""


def size_text(count: int) -> str:
    """Bytes as 4 GiB, 16 MiB."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):g} {unit}"
    return f"{count} B"


def summary(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One line for each part."""
    rows = [
        (name, str(item["state"]), f"{item['seconds']:.0f}", "; ".join(item["problems"]))
        for name, item in results.items()
    ]
    return Table("Parts", ("part", "state", "seconds", "why"), rows)
