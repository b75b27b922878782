"""Hostile text in every field of every page, and broken files of every kind: text, and named."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Piece, Project, SlipwayError
from slipway.pipeline import Checkout, Settings
from slipway.records import RunLog, save_image_layers, save_record
from slipway.records.builds import ExportRecord, ImageRecord
from slipway.report.builds_page import builds_page
from slipway.report.disk_page import disk_page
from slipway.report.fact_sources import FactSources
from slipway.report.image_page import image_pages
from slipway.report.job.job_log import read_job_log
from slipway.report.job.job_page import job_pages
from slipway.report.matrix_page import matrix_page
from slipway.report.pages import ReportPages, render_pages
from slipway.report.report_facts import ReportFacts
from slipway.sqsh.sidecar import Sidecar, write_sidecar
from slipway.tasks.commands import ROOT
from tests.support.report_samples import (
    TODAY,
    layers,
    report_facts,
    stepping_lines,
    whole_record,
)
from tests.unit.report.test_pages import Document, hostile
from tests.unit.report.test_report import JUNIT, Config

HOSTILE = {
    "script": "</style></script></title><script>alert(1)</script><img src=x onerror=alert(2)>",
    "attribute": "\" ' onmouseover=alert(1) x='",
    "terminal": "\x1b[2J\x1b]0;title\x07\r\n\x00\x7f\x9b31m",
    "direction": "\u202egnp.exe\u2066\u200f",
    "template": "{{ 1234 * 4321 }}{% include 'report.css' %}{# x #}",
    "entity": "&lt;b&gt; &#60;script&#62; ]]> <!-- -->",
    "half a letter": "\ud800 \udfff \ufffe",
    "link": "javascript:alert(1)",
}

#: What a page's address is made of: an image's name is checked by the matrix before.
ADDRESSES = {"name"}


def poisoned(value: Any, text: str) -> Any:
    """A page's model with this text for every text in it, however deep."""
    if isinstance(value, str):
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            field.name: poisoned(getattr(value, field.name), text)
            for field in dataclasses.fields(value)
            if not (field.name in ADDRESSES and type(value).__name__ == "MatrixRow")
        }
        return dataclasses.replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(poisoned(each, text) for each in value)
    if isinstance(value, dict):
        return {name: poisoned(each, text) for name, each in value.items()}
    return value


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> ReportPages:
    """One of each, with something in every table."""
    facts, events = hostile("calm")
    log = tmp_path_factory.mktemp("log") / "job.out"
    log.write_text("\n".join([*events, *stepping_lines(3, 4)]))
    disk = report_facts().disk
    assert disk is not None
    return ReportPages(
        matrix_page(facts),
        image_pages(facts),
        builds_page(facts.runs),
        disk_page(disk),
        job_pages(read_job_log(log)),
    )


def shape(page: str) -> dict[str, int]:
    """How many there are of each tag, but for the folds and lists that a state word decides of."""
    tags = Document(page).tags
    return {tag: tags.count(tag) for tag in {*tags} - {"span", "strong", "br", "pre", "code", "p"}}


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_text_of_any_field_of_any_page_is_shown_as_text(pages: ReportPages, kind: str) -> None:
    calm = render_pages(poisoned(pages, "calm"))
    odd = render_pages(poisoned(pages, HOSTILE[kind]))
    assert {path.rpartition("/")[0] for path in odd} == {"", "images", "jobs"}
    shown = 0
    for path, page in odd.items():
        assert shape(page) == shape(calm[path]), path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u202e\u2066\ud800-\udfff]", page)
        attributes = Document(page).attributes
        assert {name for name, _ in attributes} == {n for n, _ in Document(calm[path]).attributes}
        assert not any(value.strip().lower().startswith("javascript") for name, value in attributes
                       if name in ("href", "src"))  # fmt: skip
        assert "5332114" not in page
        shown += Document(page).text.count(HOSTILE["script"]) if kind == "script" else 1
    assert shown > 50 or kind != "script"


# --- broken files ---

GOOD, OTHER = "local-ds0.19.8", "local-hyperpod-ds0.19.8"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two images of which everything is recorded, and two runs."""
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))
    project = Project.at(ROOT)
    checkout = Checkout.at(ROOT)
    project.sqsh.mkdir(parents=True)
    project.logs.mkdir(parents=True)
    for image in checkout.matrix.images:
        if image.name in (GOOD, OTHER):
            record = whole_record(checkout.inputs([image])[image.name])
            sqsh = project.sqsh / f"{image.name}.sqsh"
            sqsh.write_bytes(bytes(9000))
            sidecar = Sidecar("r:t", "sha256:1", (), "b", (Piece(9000, "a" * 64),), 12, {}, "0.1.0")
            write_sidecar(sqsh, sidecar)
            exported = ExportRecord("sha256:1", str(sqsh), sidecar.digest, sidecar.size, 6.0)
            whole = ImageRecord(record.built, record.verified, exported, record.pushed)
            save_record(project, image.name, whole)
            save_image_layers(project, image.name, layers("d0", "d1"))
            (project.logs / f"verify-{image.name}.xml").write_text(JUNIT)
    with RunLog(project, "ship first") as log:
        log.note("stage", image=GOOD, name="build", fresh=True, seconds=1.0, detail="x")
    return project


FILES: dict[str, Callable[[Project], Path]] = {
    "record": lambda project: project.records / f"{GOOD}.json",
    "layers": lambda project: project.layer_records / f"{GOOD}.json",
    "checks": lambda project: project.logs / f"verify-{GOOD}.xml",
    "sidecar": lambda project: project.sqsh / f"{GOOD}.sqsh.json",
    "run": lambda project: next(project.runs.glob("*.jsonl")),
}
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in the middle": lambda data: data[: len(data) // 2],
    "of another program": lambda _: b'["a list"]\n',
    "no text": lambda _: b"\xff\xfe\x00\x80" * 400,
    "deep": lambda _: b"[" * 100_000,
    "a line of a megabyte": lambda _: b'{"format": "' + b"x" * (1 << 20) + b'"}\n',
    "hostile": lambda _: json.dumps({"format": HOSTILE["script"], "t": "\x1b[2J"}).encode(),
}


def pages_with(facts: ReportFacts) -> dict[str, str]:
    pages = (matrix_page(facts), image_pages(facts), builds_page(facts.runs))
    return render_pages(ReportPages(*pages, None, ()))


@pytest.mark.parametrize("what", FILES)
def test_a_broken_file_is_named_and_all_the_rest_is_shown(project: Project, what: str) -> None:
    path = FILES[what](project)
    good = path.read_bytes()
    for how, change in BROKEN.items():
        path.write_bytes(change(good))
        facts = FactSources(ROOT, Settings.of(Config()), TODAY).facts((GOOD, OTHER))
        assert [problem for problem in facts.problems if path.name in problem] != [], how
        other = next(each for each in facts.images if each.image.name == OTHER)
        assert other.record.built is not None, how
        assert other.layers is not None, how
        assert other.sqsh is not None, how
        assert len(other.checks) == 3, how
        texts = pages_with(facts)
        assert path.name in Document(texts["index.html"]).text, how
        assert "RUN step 1" in texts[f"images/{OTHER}.html"], how
        assert max(map(len, texts.values())) < 200_000, how
    path.unlink()
    facts = FactSources(ROOT, Settings.of(Config()), TODAY).facts((GOOD, OTHER))
    assert len(pages_with(facts)) == 5


def test_a_job_log_of_lines_of_a_megabyte_is_a_small_page(tmp_path: Path) -> None:
    path = tmp_path / "job.out"
    long = "x" * (1 << 20)
    path.write_text("\n".join([long, f"[r0] {long}", f'[r0] {{"step": 1, "a": "{long}"}}',
                               f'launch: {{"event": "{long}', *stepping_lines(2, 3)]))  # fmt: skip
    (page,) = job_pages(read_job_log(path))
    assert (page.nodes, len(page.steps), page.unread) == (2, 3, 1)
    facts = report_facts()
    text = render_pages(
        ReportPages(matrix_page(facts), image_pages(facts), builds_page(facts.runs), None, (page,))
    )["jobs/1.html"]
    assert len(text) < 200_000


def test_a_log_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    for data in (b"", b"\xff" * 5000, b"launch: {}\n" * 50, b'launch: {"event": 3}\n'):
        path = tmp_path / "job.out"
        path.write_bytes(data)
        with pytest.raises(SlipwayError, match=re.escape(str(path))):
            read_job_log(path)
