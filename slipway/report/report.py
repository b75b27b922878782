"""`inv report`: gather what is known, make pages of it, and say where they are."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.core import Project, print_json, say
from slipway.pipeline import Settings
from slipway.report.builds_page import builds_page
from slipway.report.disk_page import disk_page
from slipway.report.fact_sources import FactSources
from slipway.report.image_page import image_pages
from slipway.report.job import JobPlaces, job_pages, parse_job_source
from slipway.report.matrix_page import matrix_page
from slipway.report.pages import ReportPages, render_pages, write_pages
from slipway.report.report_facts import ReportFacts


@dataclass(frozen=True)
class ReportRequest:
    """What is shown, and where it goes. `output` "" is the state's own folder."""

    names: Sequence[str] = ()
    jobs: Sequence[str] = ()  # as `parse_job_source` takes them
    output: str = ""
    open: bool = False
    as_json: bool = False
    ssh: str = ""  # the head node of Slurm jobs


def write_report(root: Path, settings: Settings, request: ReportRequest, today: date) -> None:
    """Write the pages and print where the first is; with `as_json` print their data instead.

    Raises SlipwayError for a job's log that is none, UsageError for an image or job that is none.
    """
    places = JobPlaces(Project.at(root), request.ssh, settings.region or "")
    logs = [source.read(places) for source in map(parse_job_source, request.jobs)]
    facts = FactSources(root, settings, today).facts(request.names)
    pages = ReportPages(
        matrix_page(facts),
        image_pages(facts),
        builds_page(facts.runs),
        disk_page(facts.disk) if facts.disk else None,
        tuple(page for log in logs for page in job_pages(log)),
    )
    if request.as_json:
        print_json(pages.as_json())
        return
    folder = Path(request.output).absolute() if request.output else Project.at(root).report
    write_pages(folder, render_pages(pages))
    first = folder / ("jobs.html" if request.jobs else "index.html")
    print(first)
    _tell(facts, first, open_it=request.open)


def _tell(facts: ReportFacts, first: Path, *, open_it: bool) -> None:
    for problem in facts.problems:
        say(f"note: {problem}")
    if open_it and not webbrowser.open(first.as_uri()):
        say(f"note: no browser can be started here; open {first.as_uri()}")
