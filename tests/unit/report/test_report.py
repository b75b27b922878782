"""`inv report` on this checkout: the records of a state folder, broken ones among them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from slipway.core import Project, SlipwayError
from slipway.pipeline import Checkout, Settings
from slipway.records import RunLog, save_image_layers, save_record
from slipway.report import ReportRequest, write_report
from slipway.report.fact_sources import read_checks
from slipway.tasks.commands import ROOT
from tests.support.report_samples import job_lines, layers, whole_record

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.image.common.test_a" name="test_it" time="0.5"/>
<testcase classname="c" name="test_bad" time="odd"><failure message="&lt;script&gt;"/></testcase>
<testcase classname="c" name="test_left" time="0"><skipped message="no"/></testcase>
</testsuite></testsuites>"""


class Config:
    """invoke's configuration: the defaults of invoke.yaml, and an engine that is none."""

    def __init__(self) -> None:
        defaults = YAML(typ="safe").load(ROOT / "invoke.yaml")["slipway"]
        self.slipway = {**defaults, "engine": "unix:///nowhere.sock"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))
    return Project.at(ROOT)


def report(
    *names: str, jobs: tuple[str, ...] = (), output: str = "", as_json: bool = False
) -> None:
    request = ReportRequest(names, jobs, output, as_json=as_json)
    write_report(ROOT, Settings.of(Config()), request, date(2026, 6, 1))


def test_what_is_recorded_is_shown_and_what_is_broken_is_named(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = Checkout.at(ROOT)
    good, bad = "local-ds0.19.8", "local"
    image = next(image for image in checkout.matrix.images if image.name == good)
    decided = checkout.inputs([image])[good]
    save_record(project, good, whole_record(decided))
    save_image_layers(project, good, layers("d0", "d1"))
    (project.records / f"{bad}.json").write_text('{"built": {"half')
    (project.layer_records / f"{bad}.json").write_text("[]")
    project.logs.mkdir(parents=True)
    (project.logs / f"verify-{good}.xml").write_text(JUNIT)
    with RunLog(project, "ship local") as log:
        log.note("stage", image=good, name="build", fresh=True, seconds=1.0, detail="x")
    (project.runs / "00000000T000000Z-1.jsonl").write_text('{"format": "slipway-run/9", "t": 1}\n')
    job = tmp_path / "job.out"
    job.write_text("\n".join(job_lines()))
    report(good, bad, jobs=(str(job),))
    told = capsys.readouterr()
    assert told.out.strip() == str(project.report / "jobs.html")
    for name in (f"images/{bad}.json", f"layers/{bad}.json", "00000000T000000Z-1.jsonl"):
        assert name in told.err
        assert name in (project.report / "index.html").read_text()
    page = (project.report / "images" / f"{good}.html").read_text()
    assert "RUN step 1" in page
    assert "test_bad" in page
    assert "1.2 GB" in (project.report / "index.html").read_text()
    assert "pretrain" in (project.report / "jobs" / "1.html").read_text()


def test_the_data_of_the_pages_can_be_had_as_json(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    report("local", as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"format", "matrix", "images", "builds", "disk", "jobs"}
    assert data["matrix"]["rows"][0]["command"] == "./inv ship local"
    assert "Images and build cache are not counted" in data["disk"]["engine"]
    assert not project.report.exists()


def test_a_log_that_is_none_ends_it_before_anything_is_written(
    project: Project, tmp_path: Path
) -> None:
    with pytest.raises(SlipwayError, match="cannot be read"):
        report("local", jobs=(str(tmp_path / "missing.out"),))
    with pytest.raises(SlipwayError, match="no image"):
        report("no-such-image")
    assert not project.report.exists()


def test_results_of_checks_are_read_by_how_each_ended(tmp_path: Path) -> None:
    path = tmp_path / "verify.xml"
    path.write_text(JUNIT)
    assert [
        (check.name, check.state, check.seconds, check.text) for check in read_checks(path)
    ] == [
        ("test_it", "passed", 0.5, ""),
        ("test_bad", "failed", 0.0, "<script>"),
        ("test_left", "skipped", 0.0, "no"),
    ]
    path.write_text(JUNIT[:-30])
    with pytest.raises(SlipwayError, match="results of checks"):
        read_checks(path)
