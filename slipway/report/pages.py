"""Page models -> HTML, and one folder of it. Every text is escaped, whatever it holds."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from slipway.core import (
    SlipwayError,
    human_bytes,
    human_seconds,
    printable,
    public_environment,
    redact,
    write_atomic,
)
from slipway.report.builds_page import BuildsPage
from slipway.report.disk_page import DiskPage
from slipway.report.image_page import ImagePage
from slipway.report.job import JobPage, queue_lead, start_seconds
from slipway.report.matrix_page import MatrixPage

REPORT_FORMAT = "slipway-report/1"
LISTING = "report.json"
"""What the folder holds: the next report removes the pages of this list, and nothing else."""

_PAGE = re.compile(r"((images|jobs)/)?[A-Za-z0-9][A-Za-z0-9._+-]*\.html")

SHOWN_CHARACTERS = 400
"""Of one text on a page; a longer one says how long it is."""


@dataclass(frozen=True)
class ReportPages:
    """All pages of one report."""

    matrix: MatrixPage
    images: tuple[ImagePage, ...]
    builds: BuildsPage
    disk: DiskPage | None
    jobs: tuple[JobPage, ...]

    def as_json(self) -> dict[str, Any]:
        """The data of each page, for a program."""
        return {"format": REPORT_FORMAT, **asdict(self)}


def render_pages(pages: ReportPages) -> dict[str, str]:
    """Path below the folder -> the page's text."""
    environment = _environment()
    made: dict[str, str] = {}

    def page(path: str, template: str, **values: Any) -> None:
        above = "../" * path.count("/")
        links = {"above": above, "jobs": bool(pages.jobs), "path": path}
        made[path] = environment.get_template(template).render(links, **values)

    page("index.html", "matrix.html.j2", page=pages.matrix)
    for image in pages.images:
        page(image_path(image.row.name), "image.html.j2", page=image)
    page("builds.html", "builds.html.j2", page=pages.builds)
    page("disk.html", "disk.html.j2", page=pages.disk)
    if pages.jobs:
        page("jobs.html", "jobs.html.j2", pages=pages.jobs)
    for number, job in enumerate(pages.jobs, 1):
        page(f"jobs/{number}.html", "job.html.j2", page=job)
    return made


def image_path(name: str) -> str:
    """Where an image's page is, below the folder."""
    return f"images/{name}.html"


def write_pages(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the pages, the first one last; pages of an earlier report that are none now go.

    Raises SlipwayError for a folder that holds something else.
    """
    listing = folder / LISTING
    earlier = _listed(folder, listing)
    write_atomic(listing, json.dumps({"format": REPORT_FORMAT, "pages": sorted(texts)}) + "\n")
    for path, text in sorted(texts.items(), key=lambda item: item[0] == "index.html"):
        write_atomic(folder / path, text)
    for path in earlier - set(texts):
        (folder / path).unlink(missing_ok=True)


def _listed(folder: Path, listing: Path) -> set[str]:
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return set()
        noted = json.loads(listing.read_bytes())
        pages = {str(path) for path in noted["pages"]}
        if noted["format"] != REPORT_FORMAT:
            raise ValueError(noted["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlipwayError(
            "the folder holds something that is no report of ours",
            where=str(folder),
            cure="Give another --output, or an empty folder.",
        ) from error
    return {path for path in pages if _PAGE.fullmatch(path)}


def _template_text(name: str) -> str:
    return (files("slipway.report") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    # Of the variables only those that hold a secret, once: there are thousands of texts.
    public = public_environment(os.environ)
    secrets = {name: value for name, value in os.environ.items() if name not in public}
    shown = functools.partial(shown_text, environ=secrets)
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_template_text),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters |= {
        "bytes": human_bytes,
        "seconds": human_seconds,
        "moment": _moment,
        "url": quote,
        "whole": _whole,
        "plain": _plain,
        "part_of_file": lambda part: ("of-hot", part.start, part.size),
        "span_part": lambda span, lead: (f"span {span.kind}", span.start + lead, span.seconds),
        "start_seconds": lambda page: start_seconds(page.stages),
        "stage_seconds": lambda page: {each.stage: each.slowest for each in page.stages},
        "stage_lead": _stage_lead,
        "stage_spans": _stage_spans,
        "points": _points,
    }
    style, script = _template_text("report.css"), _template_text("report.js")
    environment.globals |= {
        "image_path": image_path,
        "style": Markup(style),  # noqa: S704  our own files
        "script": Markup(script),  # noqa: S704
        "policy": (
            f"default-src 'none'; style-src '{_csp_hash(style)}'; "
            f"script-src '{_csp_hash(script)}'; base-uri 'none'; form-action 'none'"
        ),
    }
    return environment


def _points(points: Sequence[tuple[float, float]]) -> Markup:
    """Of a line or a surface: numbers alone, which are never cut as a text is."""
    return Markup(" ".join(f"{x:g},{y:g}" for x, y in points))  # noqa: S704


def _stage_lead(page: JobPage) -> float:
    """Of the queue, how much is drawn before the stages."""
    return queue_lead(page.queue, start_seconds(page.stages))


def _stage_spans(page: JobPage, lead: float) -> list[tuple[str, float, float]]:
    """The stages as parts of a bar, on which the job's start lies at `lead`."""
    own = _stage_lead(page)
    queue = [("span queue", lead - own, own)] if own else []
    return queue + [
        (f"span {each.stage}", lead + each.start, each.slowest)
        for each in page.stages
        if each.stage != "queue"
    ]


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def shown_text(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """A value as it goes into a page: text without secrets and control characters, and cut.

    `environ` are the variables that hold secrets (default: all). Escaping comes after it, by the
    template's own rules.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    # Cut twice: what a secret's half would be at the first edge is behind the second.
    text = redact(printable(value[: 2 * SHOWN_CHARACTERS]), environ)
    if len(value) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}... ({len(value)} characters)"
    return text


def _whole(text: str) -> Markup:
    """A text that is cut already, escaped."""
    return Markup("{}").format(redact(printable(text)))


def _moment(seconds: float) -> str:
    """A moment in UTC; a number that is none as it is."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s since 1970"


def _plain(number: float | None) -> str:
    """A number without an exponent, to three digits behind the point; a dash for none."""
    if number is None:
        return "-"
    return f"{number:,.3f}".rstrip("0").rstrip(".")
