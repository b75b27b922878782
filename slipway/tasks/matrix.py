"""`inv matrix`: what versions.yaml says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from invoke.collection import Collection
from invoke.context import Context

from slipway.core.console import print_json, print_table
from slipway.derive.tables import ci_include, describe, describe_reference, table_rows
from slipway.matrix.load import select
from slipway.matrix.model import explain
from slipway.pipeline.checkout import House
from slipway.tasks.cli import IMAGE_NAMES, JSON, ROOT, command
from slipway.verify.capabilities import capabilities


@command(positional=[], help={**IMAGE_NAMES, **JSON})
def matrix_list(c: Context, names: list[str], json: bool = False) -> None:
    """The images of the matrix."""
    images = select(House.at(ROOT).matrix, names)
    if json:
        print_json([explain(image) for image in images])
    else:
        headers, *rows = table_rows(images, date.today())
        print_table(headers, rows, title=f"{len(images)} images")


@command(positional=[], help=IMAGE_NAMES)
def matrix_show(c: Context, names: list[str]) -> None:
    """One cell with everything derived from it (as JSON), or where the serving image is (lmi)."""
    print_json(show(House.at(ROOT), names, date.today()))


@command(positional=[], help=IMAGE_NAMES)
def matrix_json(c: Context, names: list[str]) -> None:
    """The CI job matrix: {"include": [...]}."""
    print_json(ci_include(select(House.at(ROOT).matrix, names)))


ns = Collection("matrix", show=matrix_show, json=matrix_json)
ns.add_task(matrix_list, "list", default=True)


def show(house: House, names: Sequence[str], today: date) -> list[dict[str, Any]]:
    """Cells, and images that are only pointed to, with everything derived from them."""
    references = house.matrix.references
    pointed = [describe_reference(references[name]) for name in names if name in references]
    cells = [name for name in names if name not in references]
    images = select(house.matrix, cells) if cells or not pointed else ()
    decided = house.inputs(images)
    return pointed + [
        {
            **describe(house.matrix, image, today),
            "build_id": decided[image.name].build_id,
            "checks": [capability.name for capability in capabilities(image)],
        }
        for image in images
    ]


def why(house: House, names: Sequence[str]) -> list[str]:
    """Which checks run on each image, and the fact behind each."""
    lines = []
    for image in select(house.matrix, names):
        lines.append(f"{image.name}:")
        lines += [
            f"  {capability.name:<20} {capability.because}" for capability in capabilities(image)
        ]
    return lines
