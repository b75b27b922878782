"""What people and machines are shown of the matrix."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.derive import ci_jobs, describe_image, describe_reference, table_rows
from slipway.derive.tables import markdown_table
from slipway.matrix import Matrix, explain_image, load_matrix
from tests.support.matrix_samples import SMALL, changed, image_of, loaded

ROOT = Path(__file__).parents[3]
TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix(ROOT / "versions.yaml")


def test_the_resolved_cell_is_json_and_comes_back_the_same(matrix: Matrix) -> None:
    for image in matrix.images:
        cell = explain_image(image)
        assert json.loads(json.dumps(cell)) == cell


def test_the_resolved_cell_says_what_decides_the_image(matrix: Matrix) -> None:
    cell = explain_image(image_of(matrix, "pytorch-2.13-sagemaker-ds0.19.8"))
    assert cell["platform"] == "sagemaker"
    assert cell["base"]["tag"] == "2.13.0-cu133-amzn2023-sagemaker"
    assert cell["base"]["facts"]["torch_cuda"] == "13.0"
    assert cell["base"]["family"]["python"] == "/opt/venv/bin/python"
    assert cell["base"]["carries"] == {"deepspeed": "0.19.2", "sagemaker-training": "5.1.1"}
    assert cell["addons"] == [
        {
            "name": "sagemaker-training",
            "action": "replace",
            "version": "5.1.4",
            "requirements": ["sagemaker-training==5.1.4"],
            "env": {},
        },
        {
            "name": "deepspeed",
            "action": "replace",
            "version": "0.19.8",
            "requirements": ["deepspeed==0.19.8"],
            "env": {},
        },
        {"name": "s5cmd", "action": "install", "version": "2.3.0", "requirements": [], "env": {}},
    ]


def test_no_two_images_have_the_same_cell(matrix: Matrix) -> None:
    cells = {json.dumps({**explain_image(image), "name": ""}) for image in matrix.images}
    assert len(cells) == len(matrix.images)


def test_the_resolved_cell_holds_no_date_and_no_digest(matrix: Matrix) -> None:
    for image in matrix.images:
        text = json.dumps(explain_image(image))
        assert not re.search(r"\d{4}-\d\d-\d\d|sha256:|[0-9a-f]{40}", text)


def test_the_resolved_cell_is_the_same_in_every_process(matrix: Matrix) -> None:
    code = (
        "import json; from pathlib import Path\n"
        "from slipway.matrix.load import load_matrix\n"
        "from slipway.matrix import explain_image\n"
        f"images = load_matrix(Path({str(ROOT / 'versions.yaml')!r})).images\n"
        "print(json.dumps([explain_image(image) for image in images]))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert printed == {json.dumps([explain_image(image) for image in matrix.images])}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("end_of_patch: 2026-08-06", "end_of_patch: 2028-01-01"),
        ("because: no base carries it", "because: reworded"),
        ("size_budget_mb: 350", "size_budget_mb: 351"),
        ('aliases: {"{minor}-{platform}": {deepspeed: 0.19.8}}', "aliases: {}"),
        ('"727897471807": [cn-north-1]', '"727897471807": [cn-northwest-1]'),
    ],
)
def test_what_does_not_decide_the_content_does_not_change_the_cell(
    old: str, new: str, tmp_path: Path
) -> None:
    before, after = loaded(tmp_path, SMALL), loaded(tmp_path, changed((old, new)))
    assert before != after
    assert [explain_image(i) for i in before.images] == [explain_image(i) for i in after.images]


def test_a_cell_described_has_reasons_names_and_every_place_of_the_base(matrix: Matrix) -> None:
    cell = describe_image(matrix, image_of(matrix, "pytorch-2.6-sagemaker-ds0.19.8"), TODAY)
    assert json.loads(json.dumps(cell)) == cell
    assert "shell" in cell["because"]["sagemaker-training"]
    assert cell["repository"] == "sagemaker-slipway/pytorch"
    assert cell["tag"] == "2.6.0-py312-cu126-ubuntu22.04-sagemaker-ds0.19.8-<build id>"
    assert cell["aliases"] == ["2.6-sagemaker-ds0.19.8", "2.6-sagemaker"]
    assert cell["support"] == "past support since 2026-01-29"
    tag = "pytorch-training:2.6.0-gpu-py312-cu126-ubuntu22.04-sagemaker"
    assert cell["base_uris"]["public"] == f"public.ecr.aws/deep-learning-containers/{tag}"
    assert cell["base_uris"]["us-gov-west-1"] == (
        f"442386744353.dkr.ecr.us-gov-west-1.amazonaws.com/{tag}"
    )
    assert len(cell["base_uris"]) == 1 + 38


def test_a_base_on_no_mirror_has_no_public_place(matrix: Matrix) -> None:
    smp = describe_image(matrix, image_of(matrix, "smp-2.5-sagemaker"), TODAY)
    assert len(smp["base_uris"]) == 17
    hf = describe_image(matrix, image_of(matrix, "huggingface-2.9-sagemaker-ds0.19.8"), TODAY)
    assert "public" not in hf["base_uris"]
    assert hf["base_uris"]["eu-south-1"].startswith("692866216735.dkr.ecr.eu-south-1.")
    assert "eu-central-2" not in hf["base_uris"], "no source lists it there"


def test_a_base_of_our_own_is_in_no_registry(matrix: Matrix) -> None:
    assert describe_image(matrix, image_of(matrix, "local-ds0.19.8"), TODAY)["base_uris"] == {}


def test_the_serving_image_is_shown_with_its_uri_in_every_region(matrix: Matrix) -> None:
    shown = describe_reference(matrix.references["lmi"])
    assert shown["uris"]["eusc-de-east-1"] == (
        "204133271717.dkr.ecr.eusc-de-east-1.amazonaws.eu/djl-inference:0.38.0-lmi29.0.0-cu130"
    )
    assert "public" not in shown["uris"]


def test_the_table_has_one_row_an_image_under_its_headers(matrix: Matrix) -> None:
    headers, *rows = table_rows(matrix.images)
    assert [row[0] for row in rows] == [image.name for image in matrix.images]
    assert {len(row) for row in rows} == {len(headers)}
    row = dict(zip(headers, rows[[r[0] for r in rows].index("smp-2.5-sagemaker")], strict=True))
    assert row == {
        "image": "smp-2.5-sagemaker",
        "torch": "2.5.1",
        "python": "3.11",
        "cuda": "12.4",
        "os": "ubuntu22.04",
        "deepspeed": "-",
        "sagemaker-training": "5.1.4 (replace)",
        "end of patch": "-",
    }


def test_the_table_says_which_bases_are_past_support_on_a_day(matrix: Matrix) -> None:
    image = image_of(matrix, "pytorch-2.7-hyperpod-ds0.19.8")
    assert table_rows([image])[1][-1] == "2026-04-23"
    assert table_rows([image], date(2026, 4, 23))[1][-1] == "2026-04-23"
    assert table_rows([image], date(2026, 4, 24))[1][-1] == "past support since 2026-04-23"


def test_the_pages_table_has_the_same_rows_in_markdown(matrix: Matrix) -> None:
    lines = markdown_table(matrix.images).splitlines()
    assert len(lines) == 2 + len(matrix.images)
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert {line.count("|") for line in lines} == {9}
    assert "| `local-ds0.19.8` | 2.13.0 | 3.11 | cpu | debian12 |" in lines[3]


def test_a_ci_matrix_has_one_job_an_image(matrix: Matrix) -> None:
    jobs = ci_jobs(matrix.images)["include"]
    assert [job["image"] for job in jobs] == [image.name for image in matrix.images]
    assert jobs[[job["image"] for job in jobs].index("smp-2.5-hyperpod")] == {
        "image": "smp-2.5-hyperpod",
        "group": "smp",
        "base": "smp-2.5-sagemaker-gpu",
        "platform": "hyperpod",
        "device": "gpu",
        "architecture": "amd64",
        "repository": "smp",
    }


def test_a_ci_matrix_of_256_jobs_is_the_largest(matrix: Matrix) -> None:
    images = [dataclasses.replace(matrix.images[0], name=f"i{n}") for n in range(257)]
    assert len(ci_jobs(images[:256])["include"]) == 256
    with pytest.raises(UsageError, match="257 images are more than the 256 jobs") as caught:
        ci_jobs(images)
    assert "local 257" in (caught.value.cure or "")
