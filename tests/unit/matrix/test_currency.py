"""versions.yaml against tables of AWS's form: every news is said once, nothing is passed over."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Project, SlipwayError
from slipway.matrix import compare_with_tables, load_matrix
from slipway.resolve import check_currency, read_image_tables
from tests.support.matrix_samples import SMALL, loaded

TODAY = date(2026, 1, 1)
REGIONS = {
    "us-east-1": "763104351884",
    "us-west-2": "763104351884",
    "cn-north-1": "727897471807",
}


def al2023(version: str, cuda: str = "cu133", **more: Any) -> dict[str, Any]:
    containers = {"cpu": "cpu-amzn2023-sagemaker", "gpu": f"{cuda}-amzn2023-sagemaker"}
    return {
        "container_version": containers,
        "registries": dict(REGIONS),
        "repository": "pytorch",
        "tag_prefix": version,
        **more,
    }


def classic(python: str = "py312") -> dict[str, Any]:
    registries = dict(REGIONS)
    return {"py_versions": [python], "registries": registries, "repository": "pytorch-training"}


def tables() -> dict[str, Any]:
    """What SMALL says, as the tables would say it."""
    return {
        "pytorch": {
            "training": {
                "processors": ["cpu", "gpu"],
                "version_aliases": {"2.8": "2.8.0"},
                "versions": {"2.8.0": classic()},
            }
        },
        "pytorch-amzn2023": {"training": {"versions": {"2.13": al2023("2.13")}}},
        "xgboost": {"scope": ["inference"], "versions": {"1": {"repository": "xgboost"}}},
    }


def found(folder: Path, changed: dict[str, Any], text: str = SMALL) -> list[tuple[str, str]]:
    return [
        (finding.kind, finding.sentence)
        for finding in compare_with_tables(loaded(folder, text), changed, TODAY)
    ]


def test_what_the_tables_say_is_no_news(tmp_path: Path) -> None:
    assert found(tmp_path, tables()) == []


def with_version(table: str, version: str, entry: dict[str, Any]) -> dict[str, Any]:
    new = copy.deepcopy(tables())
    new[table]["training"]["versions"][version] = entry
    return new


@pytest.mark.parametrize(
    ("table", "version", "entry", "words"),
    [
        ("pytorch-amzn2023", "2.14", al2023("2.14"), "2.14-cu133-amzn2023-sagemaker"),
        ("pytorch", "2.9.0", classic(), "2.9.0-gpu-py312"),
        ("pytorch", "2.8.1", classic(), "pytorch-training 2.8.1 is published"),
    ],
)
def test_a_new_version_is_said_and_written_once(
    tmp_path: Path, table: str, version: str, entry: dict[str, Any], words: str
) -> None:
    new = with_version(table, version, entry)
    ((kind, sentence),) = found(tmp_path, new)
    assert kind == "new"
    assert words in sentence
    project = Project(tmp_path, tmp_path)
    (tmp_path / "versions.yaml").write_text(SMALL)
    report = check_currency(project, new, TODAY, write=True)
    text = (tmp_path / "versions.yaml").read_text()
    if version == "2.8.1":  # pytorch-2.8 is there: which of the two it shall be, a person says
        assert report.is_behind
        assert text == SMALL
        return
    assert not report.is_behind
    kept = iter(text.splitlines())
    assert all(line in kept for line in SMALL.splitlines()), "only lines were added, in their order"
    (waiting, *_) = load_matrix(tmp_path / "versions.yaml").waiting
    assert {"deepspeed", "sagemaker-training", "family"} <= set(waiting.questions)
    assert not check_currency(project, new, TODAY).findings


def test_a_version_that_is_left_out_on_purpose_is_no_news(tmp_path: Path) -> None:
    rule = "left_out:\n  old: {table: pytorch, versions: '<2.8', because: it is past its patches}\n"
    new = with_version("pytorch", "2.7.1", classic())
    assert found(tmp_path, new, f"{SMALL}\n{rule}") == []
    assert [kind for kind, _ in found(tmp_path, new)] == ["new"]


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ({**REGIONS, "eu-west-1": "763104351884"}, "pytorch-2.8 is also in eu-west-1"),
        ({"us-east-1": "763104351884"}, "does not list: cn-north-1, us-west-2"),
        ({**REGIONS, "us-west-2": "111122223333"}, "is another account's in us-west-2"),
    ],
)
def test_other_regions_and_accounts_are_said(
    tmp_path: Path, regions: dict[str, str], words: str
) -> None:
    new = with_version("pytorch", "2.8.0", {**classic(), "registries": regions})
    ((kind, sentence),) = found(tmp_path, new)
    assert kind == "different"
    assert words in sentence


def test_another_cuda_is_said(tmp_path: Path) -> None:
    new = with_version("pytorch-amzn2023", "2.13", al2023("2.13", "cu134"))
    assert found(tmp_path, new) == [
        ("different", "pytorch-2.13 has CUDA 13.4 in the table, 13.3 is stated")
    ]


def test_a_version_that_went_is_said(tmp_path: Path) -> None:
    new = tables()
    del new["pytorch"]["training"]["versions"]["2.8.0"]
    assert found(tmp_path, new) == [
        ("gone", "pytorch-2.8 is in no table of pytorch-training any more")
    ]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("pytorch-ubuntu2604", {"training": {"versions": {"3.0": {"repository": "pytorch"}}}}),
        ("torch", {"training": {"versions": {"3.0": {"repository": "pytorch-v3"}}}}),
        ("huggingface-next", {"versions": {}}),
    ],
)
def test_a_table_like_ours_that_nothing_reads_is_said(
    tmp_path: Path, name: str, table: dict[str, Any]
) -> None:
    ((kind, sentence),) = found(tmp_path, {**tables(), name: table})
    assert kind == "table"
    assert f"the table {name} " in sentence


def test_a_table_that_is_renamed_is_said_twice(tmp_path: Path) -> None:
    new = tables()
    new["pytorch-al2023"] = new.pop("pytorch-amzn2023")
    kinds = found(tmp_path, new)
    assert ("table", "the table pytorch-amzn2023 is gone: what lists pytorch now?") in kinds
    assert any("the table pytorch-al2023 lists pytorch" in text for _, text in kinds)


def test_a_table_of_another_form_is_said_and_hides_no_other(tmp_path: Path) -> None:
    new = with_version("pytorch-amzn2023", "2.14", al2023("2.14"))
    new["pytorch"] = {"training": {"releases": []}}
    kinds = [kind for kind, _ in found(tmp_path, new)]
    assert sorted(kinds) == ["new", "table"]


def test_the_end_of_patches_is_a_notice_and_no_arrears(tmp_path: Path) -> None:
    findings = compare_with_tables(loaded(tmp_path, SMALL), tables(), date(2026, 9, 1))
    assert [(f.kind, f.subject, f.is_arrears) for f in findings] == [("past", "pytorch-2.8", False)]


REFERENCE = """
references:
  lmi:
    registry: dlc
    repository: djl-inference
    grammar: lmi
    tag: 0.36.0-lmi28.0.0-cu130  # a comment
    because: to serve
"""


@pytest.mark.parametrize(
    ("tag", "version", "moves"),
    [
        ("0.38.0-lmi29.0.0-cu130", "0.38.0", True),
        ("0.36.0-lmi30.0.0-cu130", "0.36.0", True),
        ("0.36.0-lmi27.0.0-cu130", "0.36.0", False),
        ("0.9.0-lmi29.0.0-cu130", "0.9.0", False),
    ],
)
def test_a_reference_follows_what_is_newer_and_nothing_else(
    tmp_path: Path, tag: str, version: str, moves: bool
) -> None:
    entry = {"registries": REGIONS, "repository": "djl-inference", "tag_prefix": tag}
    new = {**tables(), "djl-lmi": {"scope": ["inference"], "versions": {version: entry}}}
    (tmp_path / "versions.yaml").write_text(SMALL + REFERENCE)
    report = check_currency(Project(tmp_path, tmp_path), new, TODAY, write=True)
    assert len(report.findings) == int(moves)
    expected = tag if moves else "0.36.0-lmi28.0.0-cu130"
    assert load_matrix(tmp_path / "versions.yaml").references["lmi"].tag == expected


def test_a_report_is_plain_values(tmp_path: Path) -> None:
    (tmp_path / "versions.yaml").write_text(SMALL)
    new = with_version("pytorch-amzn2023", "2.14", al2023("2.14"))
    report = check_currency(Project(tmp_path, tmp_path), new, TODAY)
    data = json.loads(json.dumps(report.as_json()))
    assert data["behind"] is True
    assert data["findings"][0]["tags"]["cpu"] == "2.14-cpu-amzn2023-sagemaker"


def wheel(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "sagemaker_core-2.99.0-py3-none-any.whl"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    path.write_bytes(content.getvalue())
    return path


def test_tables_are_read_out_of_the_wheel(tmp_path: Path) -> None:
    found = read_image_tables(
        wheel(tmp_path, {"sagemaker/core/image_uri_config/pytorch.json": "{}", "other.json": "["})
    )
    assert (found.version, found.tables) == ("2.99.0", {"pytorch": {}})


@pytest.mark.parametrize("files", [{}, {"sagemaker/core/image_uri_config/a.json": "{"}])
def test_a_wheel_without_tables_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(SlipwayError, match="sagemaker_core"):
        read_image_tables(wheel(tmp_path, files))
