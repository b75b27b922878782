"""Slipway's tasks: parse, call, print. `./inv --list` names them, `./inv --help TASK` explains."""

from __future__ import annotations

from datetime import date

from invoke.collection import Collection
from invoke.context import Context

from slipway.core import DriftError, Project, print_json, print_table, say
from slipway.derive import expected_files, find_drift, write_generated
from slipway.pipeline import (
    Checkout,
    Settings,
    check_machine,
    lock_images,
    plan_images,
    raise_for,
    run_test_suite,
    set_up_host,
    ship_images,
)
from slipway.tasks import (
    BUILD,
    IMAGE_NAMES,
    JSON,
    REGION,
    ROOT,
    SQSH,
    TARGET,
    engine,
    matrix,
    registry,
    slurm,
    sqsh,
    storage,
    task_command,
)


@task_command()
def setup(c: Context) -> None:
    """Install the host tools that are missing (as root on Debian; else prints the commands)."""
    set_up_host()


@task_command(help=JSON)
def doctor(c: Context, json: bool = False) -> None:
    """Check this machine, with the cure for everything that is not right."""
    checks = check_machine(ROOT, c.config)
    if json:
        print_json([check.as_json() for check in checks])
    else:
        print_table(("", "check", "found"), [check.row() for check in checks])
    raise_for(checks)


@task_command(help={"check": "write nothing: print what differs and exit 2"})
def generate(c: Context, check: bool = False) -> None:
    """Write the Dockerfiles and docs/images.md from versions.yaml."""
    house = Checkout.at(ROOT)
    files = expected_files(house.project, house.matrix, house.locks)
    if not check:
        written, removed = write_generated(house.project, files)
        say(f"{len(files)} files: {written} written, {removed} removed")
    elif differences := find_drift(house.project, files):
        print("".join(differences), end="")
        raise DriftError(
            f"{len(differences)} generated files differ from what versions.yaml gives",
            cure="Run `./inv generate` and commit the result.",
        )


@task_command(
    positional=[],
    help={
        **IMAGE_NAMES,
        **REGION,
        "check": "write nothing; exit 2 on drift",
        "upgrade": "take newer versions where the pins would still do",
        "pull": "fetch bases into the engine to read which packages they have (10 to 20 GB each)",
    },
)
def lock(
    c: Context,
    names: list[str],
    region: str = "",
    check: bool = False,
    upgrade: bool = False,
    pull: bool = False,
) -> None:
    """Record base digests, resolve the Python add-ons with hashes, and hash the tools."""
    settings = Settings.of(c.config, region=region)
    lock_images(ROOT, settings, names, check=check, upgrade=upgrade, pull=pull)


@task_command(positional=[], help={**IMAGE_NAMES, **JSON, **REGION})
def plan(c: Context, names: list[str], region: str = "", json: bool = False) -> None:
    """What a build would do to each image, and why; logins and disk that it needs."""
    report = plan_images(ROOT, Settings.of(c.config, region=region), names, date.today())
    if json:
        print_json(report.as_json())
    else:
        print_table(("image", "action", "because"), report.rows())
        for line in report.notes():
            say(line)


@task_command(positional=[], help={**IMAGE_NAMES, **BUILD})
def build(
    c: Context, names: list[str], region: str = "", jobs: int = 0, unlocked: bool = False
) -> None:
    """Build images in the engine."""
    settings = Settings.of(c.config, region=region, jobs=jobs)
    ship_images(ROOT, settings, names, ("build",), unlocked=unlocked)


@task_command(
    positional=[],
    help={**IMAGE_NAMES, **BUILD, "why": "print which checks would run, and why; run none"},
)
def verify(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    why: bool = False,
) -> None:
    """Build, then check inside a container that the image is what the matrix says."""
    if why:
        for line in matrix.explain_name(Checkout.at(ROOT), names):
            print(line)
        return
    settings = Settings.of(c.config, region=region, jobs=jobs)
    ship_images(ROOT, settings, names, ("build", "verify"), unlocked=unlocked)


@task_command(positional=[], help={**IMAGE_NAMES, **BUILD, **TARGET})
def push(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    target: str = "",
) -> None:
    """Build and verify, then push under the immutable tag."""
    settings = Settings.of(c.config, region=region, jobs=jobs, target=target)
    ship_images(ROOT, settings, names, ("build", "verify", "push"), unlocked=unlocked)


@task_command(positional=[], help={**IMAGE_NAMES, **BUILD, **TARGET, **SQSH, **JSON})
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
    json: bool = False,
) -> None:
    """All of it: set up, generate, build, verify, export and push; says what it made."""
    settings = Settings.of(
        c.config,
        region=region,
        jobs=jobs,
        target=target,
        sqsh_dir=output,
        sqsh_compression=compression,
    )
    steps = ("setup", "generate", "build", "verify", "sqsh", "push")
    ship_images(ROOT, settings, names, steps, unlocked=unlocked, force=force, as_json=json)


@task_command(help={"only": "unit, system or lint", "k": "pytest's -k"})
def test(c: Context, only: str = "", k: str = "") -> None:
    """Lint, types, drift, unit tests, and system tests on a real engine and registry."""
    run_test_suite(c, Project.at(ROOT), only, k)


ns = Collection(setup, doctor, generate, lock, plan, build, verify, push, ship, test)
for family in (matrix, sqsh, storage, engine, registry, slurm):
    ns.add_collection(family.ns)
