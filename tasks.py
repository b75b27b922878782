"""Slipway's tasks: parse, call, print. `./inv --list` names them, `./inv --help TASK` explains."""

from __future__ import annotations

import webbrowser
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from slipway import derive, pipeline
from slipway import report as report_pages
from slipway.core import DriftError, Project, Reporter, print_json, print_table, say
from slipway.tasks import (
    BUILD,
    IMAGE_NAMES,
    JOB_SOURCE,
    JSON,
    NAMES,
    NO_ENGINE,
    REGION,
    ROOT,
    SOCI,
    SQSH,
    TARGET,
    cluster,
    deploy,
    engine,
    fanout,
    matrix,
    registry,
    sagemaker,
    settings_page,
    slurm,
    sqsh,
    storage,
    task_command,
    task_page,
    versions_page,
)

if TYPE_CHECKING:
    from slipway.registry import AliasChange


@task_command()
def setup(c: Context) -> None:
    """Install the host tools that are missing (as root on Debian; else prints the commands)."""
    pipeline.set_up_host()


@task_command(help=JSON)
def doctor(c: Context, json: bool = False) -> None:
    """Check this machine, with the cure for everything that is not right."""
    checks = pipeline.check_machine(ROOT, c.config)
    if json:
        print_json([check.as_json() for check in checks])
    else:
        print_table(("", "check", "found"), [check.row() for check in checks])
    pipeline.raise_for(checks)


@task_command(help={"check": "write nothing: print what differs and exit 2"})
def generate(c: Context, check: bool = False) -> None:
    """Write what is derived: Dockerfiles, the schema, and tables, pages and a picture of docs/."""
    checkout = pipeline.Checkout.at(ROOT)
    files = derive.expected_files(checkout.project, checkout.matrix, checkout.locks)
    root = checkout.project.root
    files[root / "docs" / "tasks.md"] = task_page(ns)
    files[root / "docs" / "settings.md"] = settings_page((root / "invoke.yaml").read_text("utf-8"))
    files[root / "docs" / "versions.md"] = versions_page(files[root / "versions.schema.json"])
    files[root / "docs" / "rooms.svg"] = report_pages.draw_rooms(root / "slipway")
    if not check:
        written, removed = derive.write_generated(checkout.project, files)
        say(f"{len(files)} files: {written} written, {removed} removed")
    elif differences := derive.find_drift(checkout.project, files):
        print("".join(differences), end="")
        raise DriftError(
            f"{len(differences)} generated files differ from what they are made of",
            cure="Run `./inv generate` and commit the result.",
        )


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **REGION,
        "check": "write nothing; exit 2 on drift",
        "upgrade": "take newer versions where the pins would still do",
        "inventory": "read what is in bases, streaming their layers (5 to 10 GB each, once)",
    },
)
def lock(
    c: Context,
    names: list[str],
    region: str = "",
    check: bool = False,
    upgrade: bool = False,
    inventory: bool = False,
) -> None:
    """Record base digests, resolve the Python add-ons with hashes, and hash the tools."""
    settings = pipeline.Settings.of(c.config, region=region)
    pipeline.lock_images(ROOT, settings, names, check=check, upgrade=upgrade, inventory=inventory)


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **JSON,
        **REGION,
        **TARGET,
        **NO_ENGINE,
        "output": "folder for the .sqsh, where --no-engine counts it",
    },
)
def plan(
    c: Context,
    names: list[str],
    region: str = "",
    target: str = "",
    output: str = "",
    json: bool = False,
    no_engine: bool = False,
    base_from: str = "",
) -> None:
    """What a build would do to each image, and why; logins and disk that it needs."""
    settings = pipeline.Settings.of(c.config, region=region, target=target, sqsh_dir=output)
    report = pipeline.plan_images(
        ROOT, settings, names, date.today(), no_engine=no_engine, base_from=base_from
    )
    if json:
        print_json(report.as_json())
    else:
        print_table(("image", "action", "because"), report.rows())
        for line in report.notes():
            say(line)


@task_command(positional=[], images=NAMES, help={**IMAGE_NAMES, **BUILD, **NO_ENGINE})
def build(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    no_engine: bool = False,
    base_from: str = "",
) -> None:
    """Build images in the engine, or as OCI layouts without one."""
    settings = pipeline.Settings.of(c.config, region=region, jobs=jobs)
    request = pipeline.ShipRequest(
        ("build",), unlocked=unlocked, no_engine=no_engine, base_from=base_from
    )
    pipeline.ship_images(ROOT, settings, names, request)


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **BUILD,
        "only": "only checks whose names match, as pytest's -k: launch, 's5cmd or torch'",
        "why": "print which checks would run, and why; run none",
    },
)
def verify(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    only: str = "",
    why: bool = False,
) -> None:
    """Build, then check inside a container that the image is what the matrix says."""
    if why:
        for line in matrix.explain_name(pipeline.Checkout.at(ROOT), names):
            print(line)
        return
    settings = pipeline.Settings.of(c.config, region=region, jobs=jobs)
    request = pipeline.ShipRequest(("build", "verify"), unlocked=unlocked, only=only)
    pipeline.ship_images(ROOT, settings, names, request)


@task_command(
    images="name",
    help={
        **JSON,
        **REGION,
        **TARGET,
        "name": "image whose current build the alias shall name",
        "alias": "one of the aliases that versions.yaml gives the image",
        "plan": "say what would move, and move nothing",
    },
)
def promote(
    c: Context,
    name: str,
    alias: str,
    region: str = "",
    target: str = "",
    plan: bool = False,
    json: bool = False,
) -> None:
    """Have an alias name the pushed build of an image, by its manifest alone; journalled."""
    settings = pipeline.Settings.of(c.config, region=region, target=target)
    _print_changes(
        [pipeline.promote_image(ROOT, settings, name, alias, plan=plan)], json=json, plan=plan
    )


@task_command(help={**JSON, **REGION, **TARGET, "alias": "alias, or REPOSITORY:ALIAS"})
def rollback(
    c: Context, alias: str, region: str = "", target: str = "", json: bool = False
) -> None:
    """Have an alias name what it named before its last promotion; journalled."""
    settings = pipeline.Settings.of(c.config, region=region, target=target)
    _print_changes([pipeline.rollback_image_alias(ROOT, settings, alias)], json=json, plan=False)


def _print_changes(changes: list[AliasChange], *, json: bool, plan: bool) -> None:
    if json:
        print_json(changes)
        return
    for change in changes:
        if change.moved:
            verb = "would move" if plan else "moved"
            print(f"{change.alias}: {verb} from {change.before or 'nothing'} to {change.after}")
        else:
            print(f"{change.alias}: names {change.after} already")


@task_command(
    positional=[], images=NAMES, help={**IMAGE_NAMES, **BUILD, **TARGET, **SOCI, **NO_ENGINE}
)
def push(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    target: str = "",
    soci: bool = False,
    no_engine: bool = False,
    base_from: str = "",
) -> None:
    """Build and verify, then push under the immutable tag."""
    settings = pipeline.Settings.of(c.config, region=region, jobs=jobs, target=target, soci=soci)
    request = pipeline.ShipRequest(
        ("build", "verify", "push"), unlocked=unlocked, no_engine=no_engine, base_from=base_from
    )
    pipeline.ship_images(ROOT, settings, names, request)


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **BUILD,
        **TARGET,
        **SOCI,
        **SQSH,
        **JSON,
        **NO_ENGINE,
        "no_sqsh": "write no .sqsh: where there is no disk for it",
    },
)
def ship(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    target: str = "",
    output: str = "",
    compression: str = "",
    force: bool = False,
    soci: bool = False,
    json: bool = False,
    no_engine: bool = False,
    no_sqsh: bool = False,
    base_from: str = "",
) -> None:
    """All of it: set up, generate, build, verify, export and push; says what it made."""
    settings = pipeline.Settings.of(
        c.config,
        region=region,
        jobs=jobs,
        target=target,
        sqsh_dir=output,
        sqsh_compression=compression,
        soci=soci,
    )
    export = () if no_sqsh else ("sqsh",)
    stages = ("setup", "generate", "build", "verify", *export, "push")
    request = pipeline.ShipRequest(
        stages,
        unlocked=unlocked,
        force=force,
        as_json=json,
        no_engine=no_engine,
        base_from=base_from,
    )
    pipeline.ship_images(ROOT, settings, names, request)


@task_command(
    help={
        **JSON,
        **REGION,
        **TARGET,
        "before": "NAME or NAME@DIGEST in the target, base:NAME, HOST/REPOSITORY:TAG or oci:FOLDER",
        "after": "what it is compared with, named in the same way",
        "allow_down": "packages may have an earlier version",
        "osv": "folder with advisories in OSV's form, to join in",
    },
)
def diff(
    c: Context,
    before: str,
    after: str,
    region: str = "",
    target: str = "",
    allow_down: bool = False,
    osv: str = "",
    json: bool = False,
) -> None:
    """What differs between two images: packages, configuration, layers; exit 1 for downgrades."""
    settings = pipeline.Settings.of(c.config, region=region, target=target)
    report = pipeline.compare_images(ROOT, settings, before, after, osv)
    if json:
        print_json(report.as_json())
    else:
        for line in report.lines():
            print(line)
        say(report.difference.summary)
    if not allow_down:
        report.require_no_downgrade()


@task_command(
    positional=[],
    repeatable=["job"],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **JSON,
        **JOB_SOURCE,
        "job": f"{JOB_SOURCE['job']}; may be given several times",
        "output": "folder for the pages (default: .slipway/report)",
        "open": "open the first page in a browser",
    },
)
def report(
    c: Context,
    names: list[str],
    job: list[str],
    ssh: str = "",
    region: str = "",
    output: str = "",
    open: bool = False,
    json: bool = False,
) -> None:
    """Pages about images, builds, disks and jobs, for a browser; they need no network."""
    request = report_pages.ReportRequest(names, job, output, open, json, ssh)
    settings = pipeline.Settings.of(c.config, region=region)
    report_pages.write_report(ROOT, settings, request, date.today())


@task_command(
    help={
        **JOB_SOURCE,
        "fanout": "folder of a fan-out on Slurm",
    }
)
def watch(c: Context, job: str = "", fanout: str = "", ssh: str = "", region: str = "") -> None:
    """A live table of this checkout's last run, of a job or of a fan-out, until it is over."""
    where = pipeline.Settings.of(c.config, region=region).region or ""
    report_pages.watch_work(ROOT, report_pages.WatchRequest(job, fanout, ssh, where))


@task_command(help={"output": "folder for the site (default: .slipway/site)", "open": "show it"})
def docs(c: Context, output: str = "", open: bool = False) -> None:
    """Build the documents as a site that opens from file://, by zensical, fetched by its hash."""
    project = Project.at(ROOT)
    folder = Path(output).absolute() if output else project.state / "site"
    with Reporter() as reporter:
        page = report_pages.build_site(project, folder, reporter.on_event)
    demo = report_pages.ReportRequest(output=str(folder / report_pages.REPORT_FOLDER))
    report_pages.write_report(ROOT, pipeline.Settings.of(c.config), demo, date.today())
    say(f"site: {page}")
    if open:
        webbrowser.open(page.as_uri())


@task_command(help={"only": "unit, system or lint", "k": "pytest's -k"})
def test(c: Context, only: str = "", k: str = "") -> None:
    """Lint, types, drift, unit tests, and system tests on a real engine and registry."""
    pipeline.run_test_suite(c, Project.at(ROOT), only, k)


ns = Collection(
    setup,
    doctor,
    generate,
    lock,
    plan,
    build,
    verify,
    push,
    ship,
    promote,
    rollback,
    diff,
    docs,
    report,
    watch,
    test,
)
for family in (
    *(matrix, sqsh, storage, engine, registry, slurm, sagemaker, cluster, deploy, fanout),
):
    ns.add_collection(family.ns)
