"""What a run made: one table, sizes and digests, and the commands that come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from shlex import quote
from shutil import which
from typing import Any

from slipway.core import (
    Project,
    SlipwayError,
    human_bytes,
    human_seconds,
    print_json,
    print_table,
    say,
)
from slipway.engine import DEFAULT_URL
from slipway.pipeline.image_run import ImageRun
from slipway.records import ImageRecord
from slipway.registry import docker_login_words


def next_commands(
    name: str,
    record: ImageRecord,
    stages: Sequence[str],
    engine_url: str,
    project: Project,
) -> list[str]:
    """What a person would do next with what was made of image `name`; each can be pasted.

    An engine that is not where the docker command looks by itself (the embedded one, a remote one)
    is named in DOCKER_HOST; "" where the run had none.
    """
    docker = (
        "docker" if engine_url in ("", DEFAULT_URL) else f"DOCKER_HOST={quote(engine_url)} docker"
    )
    has_docker = which("docker") is not None  # Slipway itself needs no such program
    commands = []
    if record.built and "build" in stages and has_docker and engine_url:
        commands.append(f"{docker} run --rm -it {record.built.reference} bash")
    if record.exported and "sqsh" in stages:
        script = f"./inv slurm.script {name} --nodes 2 --instance ml.p5.48xlarge"
        commands.append(f"{script} --sqsh {quote(record.exported.path)} -- train.py")
    if "push" in stages and has_docker:
        for pushed in record.pushed.values():
            login = docker_login_words(project, pushed.uri.partition("/")[0])
            first = f"{' '.join([docker, *login])} && " if login else ""
            by_digest = f"{pushed.uri.rpartition(':')[0]}@{pushed.digest}"
            commands.append(f"{first}{docker} pull {by_digest}")
    return commands


def _facts(record: ImageRecord) -> list[str]:
    facts = []
    if record.built:
        facts.append(f"image {record.built.image_id} ({human_bytes(record.built.size)})")
    if record.exported:
        size = human_bytes(record.exported.size)
        facts.append(f"sqsh  {record.exported.path} ({size}, digest {record.exported.digest})")
    facts += [
        f"push  {pushed.uri}@{pushed.digest} ({human_bytes(pushed.size)} compressed)"
        for pushed in record.pushed.values()
    ]
    return facts


def run_json(run: ImageRun) -> dict[str, Any]:
    """One image's run for a program."""
    return {
        "image": run.image.name,
        "steps": [asdict(step) for step in run.steps],
        "failure": str(run.failure) if run.failure else None,
        "record": asdict(run.record),
    }


def raise_failures(runs: Sequence[ImageRun]) -> None:
    """Raise SlipwayError with the failures of a run, if there are any."""
    if failed := [run for run in runs if run.failure]:
        failures = "\n".join(f"{run.image.name}: {run.failure}" for run in failed)
        raise SlipwayError(f"{len(failed)} of {len(runs)} images failed\n{failures}")


def show_runs(
    runs: Sequence[ImageRun], seconds: float, project: Project, *, engine_url: str, as_json: bool
) -> None:
    """Print the summary of a run."""
    if as_json:
        print_json([run_json(run) for run in runs])
        return
    rows = [
        (
            run.image.name,
            step.name,
            step.took,
            step.detail,
        )
        for run in runs
        for step in run.steps
    ]
    if rows:
        print_table(("image", "step", "took", "result"), rows)
    for run in runs:
        if run.failure is None:
            for line in _facts(run.record):
                say(line)
            stages = [step.name for step in run.steps]
            for command in next_commands(run.image.name, run.record, stages, engine_url, project):
                say(f"next: {command}")
    say(f"{len(runs)} image{'s' if len(runs) != 1 else ''} in {human_seconds(seconds)}")
