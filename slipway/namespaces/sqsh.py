"""`inv sqsh`: enroot-ready squashfs files."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from slipway.cli import command
from slipway.engine.client import connect
from slipway.errors import UsageError
from slipway.job import run
from slipway.job.house import Settings
from slipway.namespaces.common import BUILD, JSON, NAMES, ROOT, SQSH
from slipway.paths import Project
from slipway.registry.logins import credentials_for
from slipway.report.console import Reporter
from slipway.sqsh import compare, outside


@command(
    positional=[],
    help={
        **NAMES,
        **BUILD,
        **SQSH,
        "from_": "export without an engine: registry://HOST/REPO@sha256:..., or oci:FOLDER",
    },
)
def sqsh_export(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    output: str = "",
    compression: str = "",
    force: bool = False,
    from_: str = "",
) -> None:
    """Build, then export an enroot-ready .sqsh with its .json sidecar."""
    settings = Settings.of(
        c.config, region=region, jobs=jobs, sqsh_dir=output, sqsh_compression=compression
    )
    if from_:
        if names:
            raise UsageError("--from names the image itself", cure="Leave out the image names.")
        project = Project.at(ROOT)
        with Reporter() as reporter:
            path = outside.export_stored(
                project,
                from_,
                credentials_for(),
                cache_limit=settings.sqsh_cache,
                options=settings.sqsh_options,
                folder=settings.sqsh_dir,
                force=force,
                on_event=reporter.on_event,
            )
        print(path)
    else:
        run.run(ROOT, settings, names, ("build", "sqsh"), unlocked=unlocked, force=force)


@command(help={"file": "the .sqsh"})
def sqsh_verify(c: Context, file: str) -> None:
    """Check a .sqsh against its sidecar, its structure and all of its contents."""
    outside.verify_and_tell(Path(file))


@command(
    help={
        **JSON,
        "a": "a .sqsh, or dockerd://NAME, registry://HOST/REPO@sha256:..., oci:FOLDER",
        "b": "the same; what it has more than A is added",
        "times": "modification times count too",
    }
)
def sqsh_diff(c: Context, a: str, b: str, times: bool = False, json: bool = False) -> None:
    """What differs between two .sqsh files or images; exit code 2 where something does.

    An image is dockerd://NAME, registry://HOST/REPO@sha256:... or oci:FOLDER, and compared as it
    would be exported.
    """
    project, settings = Project.at(ROOT), Settings.of(c.config)
    with Reporter() as reporter:
        exporter = compare.Exporter(
            project,
            lambda: connect(project, settings.engine),
            credentials_for(),
            settings.sqsh_cache,
            reporter.on_event,
        )
        compare.diff_and_tell(exporter, a, b, times=times, as_json=json)


ns = Collection("sqsh", verify=sqsh_verify, diff=sqsh_diff)
ns.add_task(sqsh_export, "export", default=True)
