"""`inv matrix`: what versions.yaml says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from invoke.collection import Collection
from invoke.context import Context

from slipway import derive, matrix, pipeline, resolve, verify
from slipway.core import DriftError, Project, print_json, print_table, say
from slipway.tasks.commands import IMAGE_NAMES, JSON, NAMES, ROOT, task_command


@task_command(positional=[], images=NAMES, help={**IMAGE_NAMES, **JSON})
def matrix_list(c: Context, names: list[str], json: bool = False) -> None:
    """The images of the matrix."""
    checkout = pipeline.Checkout.at(ROOT)
    images = matrix.select_images(checkout.matrix, names)
    if json:
        print_json([matrix.explain_image(image) for image in images])
    else:
        headers, *rows = derive.table_rows(images, date.today())
        print_table(headers, rows, title=f"{len(images)} images")
        for base in () if names else checkout.matrix.waiting:
            say(f"waits: {base.name}: {' '.join(base.questions.values())}")


@task_command(
    positional=[], images=NAMES, help={**IMAGE_NAMES, "region": "Only the URI in this AWS region."}
)
def matrix_show(c: Context, names: list[str], region: str = "") -> None:
    """One cell with everything derived from it (as JSON), or where a serving image is (lmi)."""
    print_json(show_matrix(pipeline.Checkout.at(ROOT), names, date.today(), region))


@task_command(positional=[], images=NAMES, help=IMAGE_NAMES)
def matrix_json(c: Context, names: list[str]) -> None:
    """The CI job matrix: {"include": [...]}."""
    print_json(derive.ci_jobs(matrix.select_images(pipeline.Checkout.at(ROOT).matrix, names)))


@task_command(
    help={
        "write": "Edit versions.yaml: new series wait with their questions, references move.",
        "release": "Compare with this release of sagemaker-core and not with the newest.",
        **JSON,
    },
)
def matrix_currency(c: Context, write: bool = False, release: str = "", json: bool = False) -> None:
    """What AWS's own image tables have that versions.yaml does not, or has otherwise."""
    upstream = resolve.fetch_image_tables(release)
    report = resolve.check_currency(Project.at(ROOT), upstream.tables, date.today(), write=write)
    if json:
        print_json({"package": f"{resolve.PACKAGE} {upstream.version}", **report.as_json()})
    else:
        say(f"compared with the image tables of {resolve.PACKAGE} {upstream.version}")
        for line in report.lines():
            print(line)
    if report.is_behind:
        raise DriftError("versions.yaml is behind", cure="`./inv matrix.currency --write`")


ns = Collection("matrix", show=matrix_show, json=matrix_json, currency=matrix_currency)
ns.add_task(matrix_list, "list", default=True)


def show_matrix(
    checkout: pipeline.Checkout, names: Sequence[str], today: date, region: str = ""
) -> list[dict[str, Any]]:
    """Cells, and images that are only pointed to, with everything derived from them.

    With `region` only the URI there. Raises UsageError where one of them is not in the region.
    """
    references = checkout.matrix.references
    pointed = [derive.describe_reference(references[n], region) for n in names if n in references]
    cells = [name for name in names if name not in references]
    images = matrix.select_images(checkout.matrix, cells) if cells or not pointed else ()
    decided = checkout.inputs(images)
    return pointed + [
        {
            **derive.describe_image(checkout.matrix, image, today, region),
            "build_id": decided[image.name].build_id,
            "checks": [capability.name for capability in verify.capabilities_of(image)],
        }
        for image in images
    ]


def explain_name(checkout: pipeline.Checkout, names: Sequence[str]) -> list[str]:
    """Which checks run on each image, and the fact behind each."""
    lines = []
    for image in matrix.select_images(checkout.matrix, names):
        lines.append(f"{image.name}:")
        lines += [
            f"  {capability.name:<20} {capability.because}"
            for capability in verify.capabilities_of(image)
        ]
    return lines
