"""`inv engine`: the engine that Slipway starts itself."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway.cli import command
from slipway.engine import embedded
from slipway.job import answers
from slipway.namespaces.common import JSON, ROOT
from slipway.paths import Project
from slipway.report.tables import say


@command()
def engine_start(c: Context) -> None:
    """Start the embedded engine and print its URL."""
    print(embedded.start(Project.at(ROOT)))


@command()
def engine_stop(c: Context) -> None:
    """Stop the embedded engine; its images stay."""
    say("stopped" if embedded.stop(Project.at(ROOT)) else "it was not running")


@command(help=JSON)
def engine_status(c: Context, json: bool = False) -> None:
    """Whether the embedded engine runs, and where its data is."""
    answers.status(embedded.status(Project.at(ROOT)), as_json=json)


ns = Collection("engine", start=engine_start, stop=engine_stop, status=engine_status)
