"""`inv matrix`: what versions.yaml says."""

from __future__ import annotations

from datetime import date

from invoke.collection import Collection
from invoke.context import Context

from slipway.cli import command
from slipway.job import answers
from slipway.job.house import House
from slipway.matrix.expand import select
from slipway.matrix.show import ci_include, explain, table_rows
from slipway.namespaces.common import JSON, NAMES, ROOT
from slipway.report.tables import print_json, print_table


@command(positional=[], help={**NAMES, **JSON})
def matrix_list(c: Context, names: list[str], json: bool = False) -> None:
    """The images of the matrix."""
    images = select(House.at(ROOT).matrix, names)
    if json:
        print_json([explain(image) for image in images])
    else:
        headers, *rows = table_rows(images, date.today())
        print_table(headers, rows, title=f"{len(images)} images")


@command(positional=[], help=NAMES)
def matrix_show(c: Context, names: list[str]) -> None:
    """One cell with everything derived from it (as JSON), or where the serving image is (lmi)."""
    print_json(answers.show(House.at(ROOT), names, date.today()))


@command(positional=[], help=NAMES)
def matrix_json(c: Context, names: list[str]) -> None:
    """The CI job matrix: {"include": [...]}."""
    print_json(ci_include(select(House.at(ROOT).matrix, names)))


ns = Collection("matrix", show=matrix_show, json=matrix_json)
ns.add_task(matrix_list, "list", default=True)
