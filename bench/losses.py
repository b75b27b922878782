"""Whatever is lost between two runs, a plain `ship` makes it again: each part alone, and in pairs.

    python -m bench.losses --work DIR              # root; about half an hour, 6 GB
    python -m bench.losses --work DIR --only image,records+registry

DIR keeps the state of a first `ship` of the default image from this checkout. Then, for each row,
the parts are removed, `ship` runs twice, and what there is afterwards is looked at: the image under
its digest in the registry, a whole `.sqsh` file of that image, and a record that names both. The
second run must find nothing to do. Exits with 1 when a row is not right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import Project, SlipwayError
from slipway.engine import connect, start_daemon, stop_daemon
from slipway.records import load_record
from slipway.registry import (
    RegistryClient,
    credentials_for,
    start_local_registry,
    stop_local_registry,
)
from slipway.sqsh import read_sidecar, verify_sqsh_file

ROOT = Path(__file__).parents[1]
IMAGE = "local"


def lose_image(project: Project) -> None:
    """The image, by `docker rmi`."""
    start_daemon(project)
    engine = connect(project, "embedded")
    built = load_record(project, IMAGE).built
    for image in engine.client.images.list(built.reference if built else None):
        engine.client.images.remove(image.id or "", force=True)
    engine.close()


def lose_engine(project: Project) -> None:
    """All that the engine has, as on another machine."""
    stop_daemon(project)
    shutil.rmtree(project.engine)


def lose_cache(project: Project) -> None:
    """Wheels, tools and the root file system."""
    shutil.rmtree(project.cache)


def lose_records(project: Project) -> None:
    """What was noted of builds."""
    shutil.rmtree(project.records)


def lose_sqsh(project: Project) -> None:
    """The `.sqsh` file with its sidecar, and the compiled layers."""
    shutil.rmtree(project.sqsh)


def lose_registry(project: Project) -> None:
    """The local registry."""
    stop_local_registry(project)
    shutil.rmtree(project.registry)


PARTS: dict[str, Callable[[Project], None]] = {
    "image": lose_image,
    "engine": lose_engine,
    "cache": lose_cache,
    "records": lose_records,
    "sqsh": lose_sqsh,
    "registry": lose_registry,
}
ROWS = tuple(
    row
    for number in (1, 2)
    for row in itertools.combinations(PARTS, number)
    if row != ("image", "engine")  # an engine without its data has no image either
)


@dataclass(frozen=True)
class Shipped:
    """How one `ship` ended, and what it printed as JSON."""

    code: int
    seconds: float
    report: Any
    text: str


def ship(project: Project, *flags: str) -> Shipped:
    """`inv ship local` as a user runs it, on the embedded engine."""
    began = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(project.root)),
            *("ship", IMAGE, "--json", *flags),
        ],
        env={
            **os.environ,
            "SLIPWAY_STATE": str(project.state),
            "INVOKE_SLIPWAY_ENGINE": "embedded",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout) if done.returncode == 0 else None
    return Shipped(done.returncode, time.monotonic() - began, report, done.stdout + done.stderr)


def faults_of(project: Project) -> list[str]:
    """What is not as it must be after a `ship` that says it has done all."""
    record = load_record(project, IMAGE)
    if not (record.built and record.verified and record.exported and record.pushed):
        return ["the record is not complete"]
    faults = []
    target = start_local_registry(project)
    pushed = record.pushed[target.name]
    repository, _, tag = pushed.uri.removeprefix(f"{target.host}/").rpartition(":")
    with RegistryClient(target.host, credentials_for(project=project)) as registry:
        manifest = registry.manifest(repository, tag)
    if manifest.digest != pushed.digest:
        faults.append("the registry has another digest than the record")
    path = Path(record.exported.path)
    try:
        verify_sqsh_file(path)
    except SlipwayError as error:
        return [*faults, str(error)]
    sidecar = read_sidecar(path)
    images = {
        manifest.json()["config"]["digest"],
        record.built.image_id,
        record.verified.image_id,
        sidecar.image_id if sidecar else "",
    }
    if len(images) != 1:
        faults.append("record, registry and .sqsh are of several images")
    return faults


def lose_and_ship(project: Project, row: Sequence[str]) -> tuple[str, str, list[str]]:
    """Lose the parts of a row and ship twice; the seconds of both, and what was not right."""
    for part in row:
        PARTS[part](project)
    first = ship(project)
    faults = [] if first.code == 0 else [f"exit code {first.code}: {first.text[-400:]}"]
    if "Traceback" in first.text:
        faults.append("traceback")
    if first.code == 0:
        faults += faults_of(project)
    again = ship(project)
    if again.code != 0:
        faults.append(f"again: exit code {again.code}: {again.text[-400:]}")
    return f"{first.seconds:.1f}", f"{again.seconds:.1f}", faults


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="rows, as `image,records+registry`")
    options = parser.parse_args()
    project = Project(ROOT, options.work.resolve() / "state")
    rows = [tuple(row.split("+")) for row in options.only.split(",") if row] or ROWS
    wrong = 0
    try:
        begun = ship(project)
        assert begun.code == 0, begun.text
        print(f"first ship: {begun.seconds:.1f} s\n")
        print("| lost | ship, s | again, s | not right |\n|---|---|---|---|", flush=True)
        for row in rows:
            first, again, faults = lose_and_ship(project, row)
            wrong += bool(faults)
            told = "; ".join(faults).replace("\n", " ")
            print(f"| {' and '.join(row)} | {first} | {again} | {told or '-'} |", flush=True)
    finally:
        stop_local_registry(project)
        stop_daemon(project)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
