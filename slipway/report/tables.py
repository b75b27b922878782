"""Tables for a person, and JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 500
"""Columns when stdout is not a terminal: no cell is cut or wrapped, so grep and awk work."""


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; its lines are cut to the terminal's width, never elsewhere."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    table = Table(title=title or None, box=None, pad_edge=False, title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, markup=False)


def print_json(value: Any) -> None:
    """JSON on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def say(text: str) -> None:
    """A line for a person, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)
