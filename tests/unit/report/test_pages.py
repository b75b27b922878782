"""Page models -> HTML: whatever a text holds, it is text; links hold; sizes stay small."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError
from slipway.records import ImageRecord, Pin, PythonLock
from slipway.report.builds_page import builds_page
from slipway.report.disk_page import disk_page
from slipway.report.image_page import image_pages
from slipway.report.job.job_log import read_job_log
from slipway.report.job.job_page import job_pages
from slipway.report.matrix_page import matrix_page
from slipway.report.pages import LISTING, ReportPages, render_pages, shown_text, write_pages
from slipway.report.report_facts import CheckResult, ReportFacts
from tests.support.report_samples import (
    image_facts,
    job_lines,
    launcher_event,
    layers,
    report_facts,
    run,
    run_step,
    small_image,
    stepping_lines,
)
from tests.unit.docs.test_docs import exit_code

VOID = {"meta", "input", "br", "rect", "polyline", "polygon"}
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J\u202e\ud800"


def pages_of(facts: ReportFacts, jobs: Any = ()) -> dict[str, str]:
    disk = disk_page(facts.disk) if facts.disk else None
    pages = ReportPages(
        matrix_page(facts), image_pages(facts), builds_page(facts.runs), disk, tuple(jobs)
    )
    return render_pages(pages)


class Document(HTMLParser):
    """Tags, attributes and text of a page; every tag is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def job_of(folder: Path, *lines: str) -> Any:
    path = folder / "job.out"
    path.write_text("\n".join(lines))
    return job_pages(read_job_log(path))


def test_pages_are_whole_and_their_links_lead_to_pages(tmp_path: Path) -> None:
    texts = pages_of(report_facts(), job_of(tmp_path, *job_lines()))
    assert set(texts) == {
        "index.html",
        "builds.html",
        "disk.html",
        "jobs.html",
        "jobs/1.html",
        "images/pytorch-2.8-sagemaker-ds0.19.8.html",
    }
    for path, text in texts.items():
        for name, value in Document(text).attributes:
            if name == "href" and not value.startswith("#"):
                parts: list[str] = []
                for part in (PurePosixPath(path).parent / value).parts:
                    parts = parts[:-1] if part == ".." else [*parts, part]
                assert "/".join(parts) in texts
            assert name not in ("src", "style")
            assert not name.startswith("on")


def hostile(text: str) -> tuple[ReportFacts, list[str]]:
    """Facts and events whose every free text is `text`."""
    facts = image_facts(
        layers=dataclasses.replace(
            layers("d0", "d1"), env=(f"{text}={text}",), entrypoint=(text,), user=text
        ),
        checks=(CheckResult(text, text, "failed", 1.0, text),),
        may_move={"numpy": text},
    )
    layered = facts.layers
    assert layered is not None
    words = tuple(dataclasses.replace(layer, words=text) for layer in layered.layers)
    facts = dataclasses.replace(facts, layers=dataclasses.replace(layered, layers=words))
    notes = ({"what": "failure", "image": text, "text": text},)
    runs = (run(run_step(text, text, 0, 9, text=text), notes=notes),)
    events = [
        launcher_event(1, 0, "hang", text=text, ranks=[0], stacks=text),
        launcher_event(2, 0, "failed", code=1, cause=text, detail=text),
    ]
    return report_facts(facts, runs=runs, problems=(text,)), [*job_lines(), *events]


_CALM: dict[str, str] = {}


def calm_pages(folder: Path) -> dict[str, str]:
    """The pages of ordinary texts, made once."""
    if not _CALM:
        facts, lines = hostile("calm")
        _CALM.update(pages_of(facts, job_of(folder, *lines)))
    return _CALM


@settings(max_examples=12)
@given(st.text(max_size=60) | st.sampled_from([HOSTILE, "{{ 7 * 7 }}", "]]>", "<!--", "\r\n\x00"]))
def test_whatever_a_text_holds_it_is_text(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    facts, lines = hostile(text)
    ordinary_pages = calm_pages(tmp_path_factory.mktemp("calm"))
    for path, page in pages_of(facts, job_of(tmp_path_factory.mktemp("odd"), *lines)).items():
        document, ordinary = Document(page), Document(ordinary_pages[path])
        shape = {"script", "style", "a", "rect", "table", "img", "iframe"}
        count = {tag: document.tags.count(tag) for tag in shape}
        assert count["script"] == count["style"] == 1
        assert count["img"] == count["iframe"] == 0
        assert {name for name, _ in document.attributes} == {n for n, _ in ordinary.attributes}
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]", page)


def test_a_hostile_text_can_be_read_on_the_page() -> None:
    texts = pages_of(hostile(HOSTILE)[0])
    shown = Document(texts["index.html"]).text
    assert "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\\x1b[2J" in shown
    assert "\\u202e" in shown


def test_lines_and_bands_are_drawn_of_all_the_numbers_of_their_tables(tmp_path: Path) -> None:
    (page,) = job_of(tmp_path, *stepping_lines(4, 50))
    text = pages_of(report_facts(), [page])["jobs/1.html"]
    drawn = {
        kind: [tuple(map(float, point.split(","))) for point in points.split()]
        for kind, points in re.findall(r'<(polyline|polygon) points="([^"]*)"', text)
    }
    assert len(re.findall("<polyline ", text)) == 2
    assert len(drawn["polyline"]) == len(page.evenness.points) == 50
    assert len(drawn["polygon"]) == 100
    for (x, y), point in zip(drawn["polyline"], page.evenness.points, strict=True):
        assert x == pytest.approx(1000 * (point.step - 1) / 49, abs=0.1)
        assert y == pytest.approx(200 - 190 * point.middle / 3, abs=0.1)
    table = text[text.index('aria-label="Spread by step"') :].partition("</table>")[0]
    assert table.count("<tr>") == 51  # its head, and one a point


def test_several_jobs_are_compared_stage_by_stage(tmp_path: Path) -> None:
    (first,) = job_of(tmp_path, *job_lines())
    slow = [line.replace('"prefetch": 35', '"prefetch": 65.5') for line in job_lines()]
    (second,) = job_of(tmp_path, *slow)
    text = pages_of(report_facts(), [first, second])["jobs.html"]
    by_stage = text[text.index('aria-label="Jobs by stage"') :]
    rows = {
        name: re.findall(r"<td[^>]*>([^<]*)</td>", cells)
        for name, cells in re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', by_stage)
    }
    told = [{stage.stage: stage.slowest for stage in page.stages} for page in (first, second)]
    assert rows == {name: [f"{seconds[name]:.1f}" for seconds in told] for name in told[0]}
    assert rows["prefetch"] == ["35.0", "65.5"]


def test_a_text_of_a_megabyte_is_cut_and_says_how_long_it_is(tmp_path: Path) -> None:
    facts, lines = hostile("<b>" * 350_000)
    for text in pages_of(facts, job_of(tmp_path, *lines)).values():
        assert len(text) < 200_000
    assert "... (1050000 characters)" in pages_of(facts)["index.html"]


def test_secrets_are_hidden_even_at_the_edge_of_a_cut() -> None:
    for before in (0, 380, 395):
        text = "x" * before + " https://user:hunter2-secret@host/ " + "y" * 500
        assert "hunter2" not in shown_text(text)


def test_pages_stay_small() -> None:
    pins = tuple(Pin(f"package-{n}", f"1.{n}.0", ()) for n in range(300))
    checks = tuple(
        CheckResult(f"test_that_number_{n}_is_true", "tests.image.common.test_x", "passed", 0.1)
        for n in range(80)
    )
    images = [
        dataclasses.replace(
            image_facts(small_image(f"pytorch-2.{n}-sagemaker-ds0.19.{n}")),
            python=(("deepspeed", PythonLock("k", "deepspeed", pins)),),
            checks=checks,
            layers=layers(*(f"d{layer}" for layer in range(40))),
        )
        for n in range(100)
    ]
    sizes = {path: len(text.encode()) for path, text in pages_of(report_facts(*images)).items()}
    assert sizes.pop("index.html") < 300_000
    assert max(sizes.values()) < 200_000


def test_nothing_built_yet_says_what_to_run() -> None:
    bare = image_facts(record=ImageRecord(), layers=None, checks=(), sqsh=None)
    texts = pages_of(report_facts(bare, runs=(), disk=None))
    assert "./inv ship" in texts["index.html"]
    assert "./inv ship" in texts["builds.html"]
    assert "./inv storage.status" in texts["disk.html"]
    image = texts["images/pytorch-2.8-sagemaker-ds0.19.8.html"]
    for task in ("build", "verify", "sqsh", "push"):
        assert f"./inv {task} pytorch-2.8-sagemaker-ds0.19.8" in image


def test_every_command_that_a_page_tells_to_type_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = image_facts(
        record=ImageRecord(), layers=None, checks=(), sqsh=None, python=(), base_lock=None
    )
    texts = [
        *pages_of(report_facts()).values(),
        *pages_of(report_facts(bare, runs=(), disk=None)).values(),
    ]
    commands = {
        html.unescape(command)
        for text in texts
        for command in re.findall(r"<code>(\./inv [^<]*)</code>", text)
    }
    assert len(commands) > 10
    monkeypatch.chdir(Path(__file__).parents[3])
    for command in commands:
        assert exit_code(command) == 0, (command, capsys.readouterr().err)


def test_the_next_report_takes_away_its_own_old_pages_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_pages(folder, {"index.html": "a", "images/old.html": "b"})
    (folder / "images" / "mine.txt").write_text("kept")
    write_pages(folder, {"index.html": "c"})
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == {"index.html", LISTING, "images/mine.txt"}
    assert (folder / "index.html").read_text() == "c"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for listing in (None, "{", '{"format": "other", "pages": []}', "[]"):
        if listing is not None:
            (tmp_path / LISTING).write_text(listing)
        with pytest.raises(SlipwayError, match="no report of ours"):
            write_pages(tmp_path, {"index.html": "a"})
    assert not (tmp_path / "index.html").exists()


def test_a_listing_removes_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "report", tmp_path / "precious.html"
    write_pages(folder, {"index.html": "a"})
    outside.write_text("kept")
    listing = folder / LISTING
    pages = ["../precious.html", str(outside), "images/../../precious.html"]
    listing.write_text(json.dumps({"format": "slipway-report/1", "pages": pages}))
    write_pages(folder, {"index.html": "b"})
    assert outside.read_text() == "kept"
