"""`inv registry`: the registry on this machine."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import pipeline, registry
from slipway.core import Project, print_fields, say
from slipway.tasks.commands import JSON, ROOT, task_command


@task_command()
def registry_up(c: Context) -> None:
    """Start the registry on this machine and print its host."""
    port = pipeline.Settings.of(c.config).registry_port
    print(registry.start_local_registry(Project.at(ROOT), port).host)


@task_command()
def registry_down(c: Context) -> None:
    """Stop the registry on this machine; what was pushed stays."""
    say("stopped" if registry.stop_local_registry(Project.at(ROOT)) else "it was not running")


@task_command(help=JSON)
def registry_status(c: Context, json: bool = False) -> None:
    """Where the registry on this machine listens and keeps its data."""
    print_fields(registry.local_registry_status(Project.at(ROOT)), as_json=json)


ns = Collection("registry", up=registry_up, down=registry_down, status=registry_status)
