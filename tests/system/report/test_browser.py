"""The report's pages in Debian's chromium, from file://, as a person and a keyboard find them."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from slipway.core import Event, Piece, Project, human_bytes, sha256_file
from slipway.pipeline import Checkout, Settings
from slipway.records import RunLog, save_image_layers, save_record
from slipway.records.builds import ExportRecord, ImageRecord
from slipway.report import ReportRequest, write_report
from slipway.sqsh.sidecar import Sidecar, write_sidecar
from tests.support.browser import Tab, open_browser
from tests.support.report_samples import (
    job_lines,
    launcher_event,
    layers,
    stepping_lines,
    whole_record,
)

ROOT = Path(__file__).parents[3]
AXE = "axe-core@4.14.1"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
NAME = "local-ds0.19.8"
HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J"
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.image.common" name="test_a" time="0.5"/>
<testcase classname="tests.image.common" name="test_b" time="1.5"/>
<testcase classname="tests.image.s5cmd" name="test_c" time="0.25"/>
</testsuite></testsuites>"""


class Config:
    """invoke's configuration: the defaults of invoke.yaml, and an engine that is none."""

    def __init__(self) -> None:
        defaults = YAML(typ="safe").load(ROOT / "invoke.yaml")["slipway"]
        self.slipway = {**defaults, "engine": "unix:///nowhere.sock"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What runs have left: an image of which all is there, a damaged record, hostile texts."""
    top = tmp_path_factory.mktemp("report")
    project = Project(ROOT, top / "state")
    checkout = Checkout.at(ROOT)
    image = next(image for image in checkout.matrix.images if image.name == NAME)
    record = whole_record(checkout.inputs([image])[NAME])
    sqsh = project.sqsh / f"{NAME}.sqsh"
    sqsh.parent.mkdir(parents=True)
    sqsh.write_bytes(bytes(9000))
    pieces = (Piece(5000, "a" * 64), Piece(4000, "b" * 64))
    hot = ((4096, 6000), (0, 96))
    sidecar = Sidecar("r:t", "sha256:1", (), "b", pieces, 12, {"level": 1}, "0.1.0", hot)
    write_sidecar(sqsh, sidecar)
    exported = ExportRecord("sha256:1", str(sqsh), sidecar.digest, sidecar.size, 6.0)
    save_record(
        project,
        NAME,
        ImageRecord(record.built, record.verified, exported, record.pushed),
    )
    save_image_layers(project, NAME, layers("d0", "d1", "d2"))
    (project.records / "local.json").write_text("{" + HOSTILE)
    project.logs.mkdir(parents=True)
    (project.logs / f"verify-{NAME}.xml").write_text(JUNIT)
    with RunLog(project, "ship " + HOSTILE) as log:
        for kind, step in (("start", ""), ("start", "RUN a"), ("done", "RUN a"), ("cached", "b")):
            log.on_event(Event(kind, f"build {NAME}", step, HOSTILE))  # type: ignore[arg-type]
        log.on_event(Event("progress", f"build {NAME}", "layer", current=4096, unit="B"))
        log.on_event(Event("done", f"build {NAME}"))
        log.note("stage", image=NAME, name="build", fresh=True, seconds=36.6, detail="r:t")
        assert record.built is not None
        log.note("built", image=NAME, build_id=record.built.build_id, inputs=record.built.inputs)
    return project


@pytest.fixture(scope="module")
def folder(state: Project) -> Path:
    """The report of that, with two jobs."""
    job, odd = state.state / "job.out", state.state / "odd.out"
    job.write_text("\n".join(stepping_lines(4, 12)))
    failed = launcher_event(96, 0, "failed", code=1, cause=HOSTILE, detail=HOSTILE)
    odd.write_text("\n".join([*job_lines(), failed, 'launch: {"t": 17']))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_STATE", str(state.state))
        request = ReportRequest(jobs=(str(job), str(odd)))
        write_report(ROOT, Settings.of(Config()), request, date(2026, 6, 1))
    return state.report


@pytest.fixture(scope="module")
def pages(folder: Path) -> list[Path]:
    """One of each kind."""
    names = ["index", "builds", "disk", "jobs", "jobs/1", "jobs/2", f"images/{NAME}"]
    return [folder / f"{name}.html" for name in [*names, "images/local"]]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with open_browser() as browser:
        yield browser.new_tab()


@pytest.fixture(scope="module")
def axe(shared_project: Project) -> str:
    """axe-core's source; fetched with the host's own npm settings, checked by its hash."""
    folder = shared_project.cache / "axe"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{AXE.replace('@', '-')}.tgz"
    if not archive.exists() or sha256_file(archive) != AXE_SHA256:
        command = ["npm", "pack", AXE, "--pack-destination", str(folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    assert sha256_file(archive) == AXE_SHA256
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def test_pages_open_without_a_word_on_the_console_or_a_request(tab: Tab, pages: list[Path]) -> None:
    for path in pages:
        tab.open(path)
        assert tab.value("document.querySelectorAll('h1').length") == 1
        assert tab.troubles() == [], path


def test_an_error_of_a_page_would_be_seen(tab: Tab, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<img src='https://127.0.0.1:9/x.png'><script>undefined_name()</script>")
    tab.open(wrong)
    told = " ".join(tab.troubles())
    assert "Runtime.exceptionThrown" in told
    assert "request of https://127.0.0.1:9/x.png" in told


def test_every_link_leads_to_a_page_of_the_folder(
    tab: Tab, pages: list[Path], folder: Path
) -> None:
    linked = set()
    for path in pages:
        tab.open(path)
        links = "[...document.querySelectorAll('a[href]')].map((link) => link.href.split('#')[0])"
        linked |= set(tab.value(links))
    assert linked == {page.as_uri() for page in folder.rglob("*.html")}


def visible_rows(tab: Tab) -> list[str]:
    rows = "[...document.querySelectorAll('#matrix tbody tr')].filter((row) => !row.hidden)"
    names: list[str] = tab.value(f"{rows}.map((row) => row.cells[0].textContent)")
    return names


def test_the_matrix_is_filtered_and_sorted_by_keyboard(tab: Tab, folder: Path) -> None:
    tab.open(folder / "index.html")
    everything = visible_rows(tab)
    assert everything == [image.name for image in Checkout.at(ROOT).matrix.images]
    tab.press("/", "/")
    tab.type("hyperpod Smp-2.4")
    wanted = [name for name in everything if "hyperpod" in name and "smp-2.4" in name]
    assert visible_rows(tab) == wanted
    assert tab.value("document.querySelector('.find output').textContent") == (
        f"{len(wanted)} of {len(everything)}"
    )
    tab.press("Escape")
    assert visible_rows(tab) == everything
    tab.press("Tab")  # the table's own scroll region
    tab.press("Tab")  # its first column
    assert tab.value("document.activeElement.textContent") == "Image"
    orders = []
    for order in ("ascending", "descending"):
        tab.press("Enter", "\r")
        head = "document.activeElement.parentElement.getAttribute('aria-sort')"
        assert tab.value(head) == order
        orders.append(visible_rows(tab))
    up, down = orders
    assert sorted(up) == sorted(everything)
    assert down == up[::-1]
    kinds = [name.partition("-")[0] for name in up]
    assert kinds == sorted(kinds)
    series = [name.split("-")[1] for name in up if name.startswith("pytorch")]
    assert series.index("2.9") < series.index("2.10") < series.index("2.13")


def test_a_column_of_sizes_is_sorted_by_bytes(tab: Tab, folder: Path) -> None:
    tab.open(folder / "images" / f"{NAME}.html")
    sizes = """(() => {
        const table = document.querySelector('[aria-label="Layers"] table');
        const button = table.tHead.rows[0].cells[1].querySelector('button');
        button.click(); button.click();
        return [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.v));
    })()"""
    assert tab.value(sizes) == [100, 10, 1]


def test_numbers_on_the_pages_are_those_of_the_records(
    tab: Tab, folder: Path, state: Project
) -> None:
    record = json.loads((state.records / f"{NAME}.json").read_text())
    noted = json.loads((state.layer_records / f"{NAME}.json").read_text())
    sidecar = json.loads(Path(record["exported"]["path"] + ".json").read_text())
    tab.open(folder / "index.html")
    cells = f"""[...document.querySelectorAll('#matrix tbody tr')]
        .find((row) => row.cells[0].textContent === {json.dumps(NAME)})"""
    row: list[str] = tab.value(f"[...{cells}.cells].map((cell) => cell.textContent.trim())")
    pieces = sum(int(line.split()[0]) for line in sidecar["pieces"])
    assert row[3] == human_bytes(record["built"]["size"])
    assert row[4].startswith(f"{record['verified']['passed']} checks")
    assert row[5] == human_bytes(pieces)
    assert row[6] == ", ".join(record["pushed"])
    tab.open(folder / "images" / f"{NAME}.html")

    def column(label: str, at: int) -> list[float]:
        rows = f"""[...document.querySelector('[aria-label="{label}"] table').tBodies[0].rows]"""
        values: list[float] = tab.value(f"{rows}.map((row) => Number(row.cells[{at}].dataset.v))")
        return values

    assert column("Layers", 1) == [layer["size"] for layer in noted["layers"]]
    assert sorted(column("Checks", 2)) == [0.25, 0.5, 1.5]
    hot = sum(int(line.split()[1]) for line in sidecar["hot"])
    assert sum(column("Parts of the file that a start reads", 1)) == hot
    text: str = tab.value("document.body.textContent")
    for known in (sidecar["digest"], record["built"]["image_id"], noted["entrypoint"][0]):
        assert known in text
    drawn = """[...document.querySelectorAll('[aria-label="Layers"] rect:not(.ground)')]
        .map((bar) => Number(bar.getAttribute('width')))"""
    total = sum(layer["size"] for layer in noted["layers"])
    widths = [max(1000 * layer["size"] / total, 3) for layer in noted["layers"]]
    assert tab.value(drawn) == pytest.approx(widths, abs=0.1)


@pytest.mark.parametrize("width", [320, 1280, 3840])
def test_no_page_is_wider_than_its_window(tab: Tab, pages: list[Path], width: int) -> None:
    tab.set_width(width)
    for path in pages:
        tab.open(path)
        assert tab.value("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_axe_finds_nothing(tab: Tab, pages: list[Path], axe: str, scheme: str, width: int) -> None:
    tab.set_width(width)
    tab.set_scheme(scheme)
    for path in pages:
        tab.open(path)
        tab.value("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        tab.value(f"{axe}; 0")
        # Each rule's cases are in the first of the 75 rows.
        tab.value(
            "document.querySelectorAll('#matrix tbody tr:nth-child(n+12)')"
            ".forEach((row) => row.remove())"
        )
        found: list[Any] = tab.value(
            "axe.run().then((run) => run.violations.map("
            "(each) => [each.id, each.nodes.slice(0, 3).map((node) => node.html)]))"
        )
        assert found == [], path


def test_axe_would_find_something(tab: Tab, axe: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<html><body><p style='color:#eee'>pale<img src='data:,'><input></body>")
    tab.set_scheme("light")
    tab.open(wrong)
    tab.value(f"{axe}; 0")
    found = tab.value("axe.run().then((run) => run.violations.map((each) => each.id))")
    assert {"color-contrast", "image-alt", "label", "html-has-lang"} <= set(found)


#: CSS pixels: A4 on its side, 297 mm, without the margins of 10 mm that the pages ask for.
PAPER = 1046

#: Elements that stick out of the paper or out of a part that cannot be scrolled there, and texts
#: that have no place; the navigation and the fields for words are of no use on paper.
CUT = """(() => {
    const cut = [];
    for (const each of document.querySelectorAll("main *:not(svg, svg *)")) {
        const [box, style] = [each.getBoundingClientRect(), getComputedStyle(each)];
        if (box.right > innerWidth + 1) cut.push("outside: " + each.outerHTML.slice(0, 90));
        if (style.overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1)
            cut.push("cut: " + each.outerHTML.slice(0, 90));
    }
    const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const [text, range] = [texts.currentNode, document.createRange()];
        if (!text.data.trim() || text.parentElement.closest(".find, .skip")) continue;
        range.selectNodeContents(text);
        const boxes = [...range.getClientRects()];
        const folded = !text.parentElement.checkVisibility();
        if (folded || !boxes.some((box) => box.width && box.height))
            cut.push("no place: " + text.data.slice(0, 90));
    }
    return cut;
})()"""

#: Backgrounds darker, and texts lighter, than the middle.
DARK = """(() => {
    const light = (color) => {
        const [r, g, b, a] = [...color.matchAll(/[\\d.]+/g)].map(Number);
        return a === 0 ? null : (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
    };
    const dark = [];
    for (const each of [document.documentElement, ...document.querySelectorAll("body, main *")]) {
        if (each.closest("svg")) continue;
        const style = getComputedStyle(each);
        const [paper, ink] = [light(style.backgroundColor), light(style.color)];
        if (paper !== null && paper < 0.5 || ink > 0.5) dark.push(each.outerHTML.slice(0, 90));
    }
    return dark;
})()"""


def test_on_paper_nothing_is_cut_or_dark_and_folded_parts_are_open(
    tab: Tab, pages: list[Path], tmp_path: Path
) -> None:
    tab.set_width(PAPER)
    tab.set_scheme("dark", "print")
    try:
        for path in pages:
            tab.open(path)
            assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
            assert tab.value(CUT) == [], path
            assert tab.value(DARK) == [], path
        wrong = tmp_path / "wrong.html"
        wrong.write_text(
            "<main><div style='overflow: auto; width: 9em'><p style='width: 99em'>wide</p></div>"
            "<details><summary>a</summary><p>b</p></details><p style='background: #123'>b</p>"
        )
        tab.open(wrong)
        kinds = {text.partition(":")[0] for text in tab.value(CUT)}
        assert kinds == {"outside", "cut", "no place"}
        assert len(tab.value(DARK)) == 1
    finally:
        tab.set_scheme("light")


def test_links_hold_on_paper(tab: Tab, pages: list[Path]) -> None:
    """Chromium writes the targets of a PDF's links as they are, beside its packed streams."""
    tab.set_scheme("light", "print")
    for path in pages:
        tab.open(path)
        links = "[...document.querySelectorAll('main a[href]')].map((link) => link.href)"
        wanted = {link for link in tab.value(links) if "#" not in link}
        data = tab.print_pdf()
        assert data.startswith(b"%PDF-")
        printed = {uri.decode() for uri in re.findall(rb"/URI \(([^)]*)\)", data)}
        assert printed == wanted, path
    tab.set_scheme("light")


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light"), (3840, "dark")])
def test_a_picture_of_each_page_is_kept_small_for_a_person_to_look_at(
    tab: Tab, pages: list[Path], shared_project: Project, width: int, scheme: str
) -> None:
    folder = shared_project.state / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    tab.set_width(width)
    tab.set_scheme(scheme)
    for path in pages:
        tab.open(path)
        picture = tab.screenshot(width, 1200, 1 if width < 2000 else 0.4)
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 300_000
        (folder / f"{path.stem}-{scheme}-{width}.png").write_bytes(picture)


def test_hostile_texts_are_read_and_not_run(tab: Tab, pages: list[Path], folder: Path) -> None:
    seen = ""
    for path in pages:
        tab.open(path)
        assert tab.value("document.querySelectorAll('img, iframe').length") == 0
        assert tab.value("document.scripts.length") == 1
        seen += tab.value("document.body.textContent")
    shown = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\\x1b[2J"
    assert seen.count(shown) >= 4
    assert "local.json" in seen


def test_without_javascript_all_is_there(tab: Tab, folder: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(folder / "index.html")
        document = tab.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        rows = tab.call("DOM.querySelectorAll", nodeId=document, selector="#matrix tbody tr")
        buttons = tab.call("DOM.querySelectorAll", nodeId=document, selector="button")
        fields = tab.call("DOM.querySelectorAll", nodeId=document, selector=".find:not([hidden])")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(rows["nodeIds"]) == len(Checkout.at(ROOT).matrix.images)
    assert buttons["nodeIds"] == fields["nodeIds"] == []
