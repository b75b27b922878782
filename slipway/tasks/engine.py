"""`inv engine`: the engine that Slipway starts itself."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import engine
from slipway.core import Project, print_fields, say
from slipway.tasks.commands import JSON, ROOT, task_command


@task_command()
def engine_start(c: Context) -> None:
    """Start the embedded engine and print its URL."""
    print(engine.start_daemon(Project.at(ROOT)))


@task_command()
def engine_stop(c: Context) -> None:
    """Stop the embedded engine; its images stay."""
    say("stopped" if engine.stop_daemon(Project.at(ROOT)) else "it was not running")


@task_command(help=JSON)
def engine_status(c: Context, json: bool = False) -> None:
    """Whether the embedded engine runs, and where its data is."""
    print_fields(engine.daemon_status(Project.at(ROOT)), as_json=json)


ns = Collection("engine", start=engine_start, stop=engine_stop, status=engine_status)
