"""What a run made: one table, sizes and digests, and the commands that come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
from slipway.matrix import Image
from slipway.pipeline.stages import StageResult
from slipway.records import ImageRecord, load_record


@dataclass
class ImageRun:
    """What one image's run made, step by step."""

    image: Image
    steps: list[StageResult] = field(default_factory=list)
    failure: SlipwayError | None = None


def next_commands(name: str, record: ImageRecord, steps: Sequence[str]) -> list[str]:
    """What a person would do next with what was made of image `name`."""
    commands = []
    if record.built and "build" in steps:
        commands.append(f"docker run --rm -it {record.built.reference} bash")
    if record.exported and "sqsh" in steps:
        commands.append(f"./inv slurm.script {name} --nodes 2 --instance TYPE -- train.py")
    if "push" in steps:
        commands += [
            f"docker pull {pushed.uri.rpartition(':')[0]}@{pushed.digest}"
            for pushed in record.pushed.values()
        ]
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


def runs_json(project: Project, made: ImageRun) -> dict[str, Any]:
    """One image's run for a program."""
    return {
        "image": made.image.name,
        "steps": [asdict(done) for done in made.steps],
        "failure": str(made.failure) if made.failure else None,
        "record": asdict(load_record(project, made.image.name)),
    }


def show_runs(project: Project, made: Sequence[ImageRun], seconds: float, *, as_json: bool) -> None:
    """Print the summary of a run."""
    if as_json:
        print_json([runs_json(project, entry) for entry in made])
        return
    rows = [
        (
            entry.image.name,
            done.name,
            human_seconds(done.seconds) if done.fresh else "done before",
            done.detail,
        )
        for entry in made
        for done in entry.steps
    ]
    if rows:
        print_table(("image", "step", "took", "result"), rows)
    for entry in made:
        if entry.failure is None:
            record = load_record(project, entry.image.name)
            for line in _facts(record):
                say(line)
            for command in next_commands(
                entry.image.name, record, [done.name for done in entry.steps]
            ):
                say(f"next: {command}")
    say(f"{len(made)} image{'s' if len(made) != 1 else ''} in {human_seconds(seconds)}")
