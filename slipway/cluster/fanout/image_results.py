"""What became of each image of a fan-out, for a person and for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.cluster.fanout.fanout_plan import PlannedImage
from slipway.core import (
    DOCUMENT_FAULTS,
    SlipwayError,
    human_seconds,
    print_json,
    print_table,
    printable,
    say,
)


@dataclass(frozen=True)
class ImageResult:
    """One image: `failure` is None where it was shipped. `attempt` counts workers that tried."""

    name: str
    base: str
    build_id: str
    failure: str | None
    worker: str
    attempt: int = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    made: tuple[str, ...] = ()  # steps that were done now, rather than found done
    uri: str = ""
    sqsh: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was shipped."""
        return self.failure is None

    @classmethod
    def of_json(cls, value: Any) -> ImageResult:
        """From `asdict`. Raises TypeError, KeyError for anything else."""
        return cls(**{**value, "made": tuple(value["made"])})


def result_of_ship(
    image: PlannedImage, exit_code: int, output: str, errors: str, **facts: Any
) -> ImageResult:
    """What `inv ship NAME --json` says that it did; without its JSON, the end of its messages."""
    try:
        (run,) = json.loads(output)
        failure = run["failure"]
        made = tuple(step["name"] for step in run["steps"] if step["fresh"])
        pushed = [*run["record"]["pushed"].values()]
        exported = run["record"]["exported"] or {}
        uri = f"{pushed[-1]['uri']}@{pushed[-1]['digest']}" if pushed else ""
        sqsh = str(exported.get("path", ""))
    except DOCUMENT_FAULTS:
        failure, made, uri, sqsh = None, (), "", ""
        exit_code = exit_code or 1  # it says nothing of what it did
    if exit_code and not failure:
        told = errors.rpartition("inv ship: ")[2].strip() or "it said nothing"
        failure = f"exit code {exit_code}: {printable(told[-2000:])}"
    return ImageResult(
        image.name,
        image.base,
        image.build_id,
        failure,
        made=made,
        uri=uri,
        sqsh=sqsh,
        **facts,
    )


def show_results(
    images: Sequence[PlannedImage],
    results: Iterable[ImageResult],
    *,
    as_json: bool,
    going: bool = False,
    logs: Path | None = None,
) -> None:
    """One table of all images. Raises SlipwayError where some failed, or were not reached by a run
    that is not `going` on; `logs` is where more is told.
    """
    by_name = {result.name: result for result in results}
    left_word = "not yet" if going else "not reached"
    if as_json:
        rows = [
            asdict(by_name[image.name])
            if image.name in by_name
            else {**asdict(image), "failure": left_word}
            for image in images
        ]
        print_json(rows)
    else:
        print_table(
            ("image", "worker", "took", "result"),
            [_row(image, by_name.get(image.name), left_word) for image in images],
        )
    failed = [result for result in by_name.values() if not result.ok]
    left = [image.name for image in images if image.name not in by_name and not going]
    seconds = sum(result.seconds for result in by_name.values())
    cpu = sum(result.cpu_seconds for result in by_name.values())
    good = len(by_name) - len(failed)
    say(
        f"{good} of {len(images)} images shipped, in {human_seconds(seconds)} of workers and "
        f"{human_seconds(cpu)} of CPU"
    )
    if failed or left:
        texts = [f"{result.name}: {result.failure}" for result in failed]
        if left:
            texts.append(f"not reached: {', '.join(left)}")
        raise SlipwayError(
            f"{len(failed)} images failed, {len(left)} were not reached\n" + "\n".join(texts),
            cure=f"Logs: {logs}. The same command with --resume does what is left."
            if logs
            else None,
        )


def _row(
    image: PlannedImage, result: ImageResult | None, left_word: str
) -> tuple[str, str, str, str]:
    if result is None:
        return image.name, "", "", left_word
    worker = result.worker + (f" (attempt {result.attempt})" if result.attempt > 1 else "")
    if result.failure is not None:
        text = f"FAILED: {result.failure.splitlines()[0]}"
    else:
        text = result.uri if result.made else f"done before: {result.uri}"
    return image.name, worker, human_seconds(result.seconds), text
