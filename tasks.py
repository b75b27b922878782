"""Slipway's tasks: parse, call, print. `./inv --list` names them, `./inv --help TASK` explains."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from slipway import doctor as doctor_checks
from slipway import generate as generated
from slipway import job, suite
from slipway.app import House, Settings
from slipway.cli import command
from slipway.engine import embedded, host
from slipway.errors import DriftError
from slipway.matrix.expand import select
from slipway.matrix.show import ci_include, explain, table_rows
from slipway.paths import Project
from slipway.registry import local
from slipway.report import answers
from slipway.report.tables import print_json, print_table, say
from slipway.sqsh import outside

ROOT = Path(__file__).parent

NAMES = {"names": "image names or globs, e.g. 'pytorch-2.1*-sagemaker-*'; given as plain words"}
JSON = {"json": "machine-readable on stdout; text for people goes to stderr"}
BUILD = {
    "region": "AWS region to take bases from and push to (default: the bases' public mirror)",
    "jobs": "builds at a time",
    "unlocked": "build also on bases and requirements that no lock pins",
}
TARGET = {"target": "registry to push to: local or ecr"}
SQSH = {"output": "folder for the .sqsh", "force": "overwrite a .sqsh of another build"}


@command()
def setup(c: Context) -> None:
    """Install the host tools that are missing (as root on Debian; else prints the commands)."""
    missing = host.missing()
    host.install(missing, job.print_event)
    say("nothing to install" if not missing else f"installed: {', '.join(t.name for t in missing)}")


@command(help=JSON)
def doctor(c: Context, json: bool = False) -> None:
    """Check this machine, with the cure for everything that is not right."""
    checks = doctor_checks.check(ROOT, c.config)
    if json:
        print_json([check.as_json() for check in checks])
    else:
        print_table(("", "check", "found"), [check.row() for check in checks])
    doctor_checks.raise_for(checks)


@command(positional=[], help={**NAMES, **JSON})
def matrix_list(c: Context, names: list[str], json: bool = False) -> None:
    """The images of the matrix."""
    images = select(House.at(ROOT).matrix, names)
    if json:
        print_json([explain(image) for image in images])
    else:
        headers, *rows = table_rows(images, date.today())
        print_table(headers, rows, title=f"{len(images)} images")


@command(positional=[], help=NAMES)
def matrix_show(c: Context, names: list[str]) -> None:
    """One cell with everything derived from it (as JSON), or where the serving image is (lmi)."""
    print_json(answers.show(House.at(ROOT), names, date.today()))


@command(positional=[], help=NAMES)
def matrix_json(c: Context, names: list[str]) -> None:
    """The CI job matrix: {"include": [...]}."""
    print_json(ci_include(select(House.at(ROOT).matrix, names)))


@command(help={"check": "write nothing: print what differs and exit 2"})
def generate(c: Context, check: bool = False) -> None:
    """Write the Dockerfiles and the README's table from versions.yaml."""
    house = House.at(ROOT)
    files = generated.expected(house.project, house.matrix, house.locks)
    if not check:
        written, removed = generated.write(house.project, files)
        say(f"{len(files)} files: {written} written, {removed} removed")
    elif differences := generated.drift(house.project, files):
        print("".join(differences), end="")
        raise DriftError(
            f"{len(differences)} generated files differ from what versions.yaml gives",
            cure="Run `./inv generate` and commit the result.",
        )


@command(
    positional=[],
    help={
        **NAMES,
        "region": BUILD["region"],
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
    job.lock(ROOT, settings, names, check=check, upgrade=upgrade, pull=pull)


@command(positional=[], help={**NAMES, **JSON, "region": BUILD["region"]})
def plan(c: Context, names: list[str], region: str = "", json: bool = False) -> None:
    """What a build would do to each image, and why; logins and disk that it needs."""
    report = answers.plan(ROOT, Settings.of(c.config, region=region), names, date.today())
    if json:
        print_json(report.as_json())
    else:
        print_table(("image", "action", "because"), report.rows())
        for line in report.notes():
            say(line)


@command(positional=[], help={**NAMES, **BUILD})
def build(
    c: Context, names: list[str], region: str = "", jobs: int = 0, unlocked: bool = False
) -> None:
    """Build images in the engine."""
    settings = Settings.of(c.config, region=region, jobs=jobs)
    job.run(ROOT, settings, names, ("build",), unlocked=unlocked)


@command(
    positional=[],
    help={**NAMES, **BUILD, "why": "print which checks would run, and why; run none"},
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
        for line in answers.why(House.at(ROOT), names):
            print(line)
        return
    settings = Settings.of(c.config, region=region, jobs=jobs)
    job.run(ROOT, settings, names, ("build", "verify"), unlocked=unlocked)


@command(
    positional=[],
    help={
        **NAMES,
        **SQSH,
        "from_": "export without an engine: registry://HOST/REPO@sha256:..., or oci:FOLDER",
    },
)
def sqsh_export(
    c: Context, names: list[str], output: str = "", force: bool = False, from_: str = ""
) -> None:
    """Build, then export an enroot-ready .sqsh with its .json sidecar."""
    settings = Settings.of(c.config, sqsh_dir=output)
    if from_:
        outside.export_from(Project.at(ROOT), from_, names, settings.sqsh_dir, force=force)
    else:
        job.run(ROOT, settings, names, ("build", "sqsh"), force=force)


@command()
def sqsh_verify(c: Context, file: str) -> None:
    """Check a .sqsh against its sidecar, its structure and all of its contents."""
    outside.verify_and_tell(Path(file))


@command(help={**JSON, "times": "modification times count too"})
def sqsh_diff(c: Context, a: str, b: str, times: bool = False, json: bool = False) -> None:
    """What differs between two .sqsh files; exit code 2 where something does."""
    outside.diff_and_tell(Path(a), Path(b), times=times, as_json=json)


@command(positional=[], help={**NAMES, **TARGET, "region": BUILD["region"]})
def push(c: Context, names: list[str], target: str = "", region: str = "") -> None:
    """Build and verify, then push under the immutable tag."""
    settings = Settings.of(c.config, target=target, region=region)
    job.run(ROOT, settings, names, ("build", "verify", "push"))


@command(positional=[], help={**NAMES, **BUILD, **TARGET, **SQSH, **JSON})
def ship(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    target: str = "",
    output: str = "",
    force: bool = False,
    json: bool = False,
) -> None:
    """All of it: set up, generate, build, verify, export and push; says what it made."""
    settings = Settings.of(c.config, region=region, jobs=jobs, target=target, sqsh_dir=output)
    steps = ("setup", "generate", "build", "verify", "sqsh", "push")
    job.run(ROOT, settings, names, steps, unlocked=unlocked, force=force, as_json=json)


@command(help={"only": "unit, system or lint", "k": "pytest's -k"})
def test(c: Context, only: str = "", k: str = "") -> None:
    """Lint, types, drift, unit tests, and system tests on a real engine and registry."""
    suite.run(c, Project.at(ROOT), only, k)


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
    """Which engine a build would use, and where its data is."""
    answers.status(embedded.status(Project.at(ROOT)), as_json=json)


@command()
def registry_up(c: Context) -> None:
    """Start the registry on this machine and print its host."""
    print(local.up(Project.at(ROOT), Settings.of(c.config).registry_port).host)


@command()
def registry_down(c: Context) -> None:
    """Stop the registry on this machine; what was pushed stays."""
    say("stopped" if local.down(Project.at(ROOT)) else "it was not running")


@command(help=JSON)
def registry_status(c: Context, json: bool = False) -> None:
    """Where the registry on this machine listens and keeps its data."""
    answers.status(local.status(Project.at(ROOT)), as_json=json)


ns = Collection(setup, doctor, generate, lock, plan, build, verify, push, ship, test)
ns.add_collection(Collection("matrix"))
ns.collections["matrix"].add_task(matrix_list, "list", default=True)
ns.collections["matrix"].add_task(matrix_show, "show")
ns.collections["matrix"].add_task(matrix_json, "json")
ns.add_collection(Collection("sqsh"))
ns.collections["sqsh"].add_task(sqsh_export, "export", default=True)
ns.collections["sqsh"].add_task(sqsh_verify, "verify")
ns.collections["sqsh"].add_task(sqsh_diff, "diff")
ns.add_collection(Collection("engine", start=engine_start, stop=engine_stop, status=engine_status))
ns.add_collection(
    Collection("registry", up=registry_up, down=registry_down, status=registry_status)
)
