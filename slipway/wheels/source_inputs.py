"""What builds from source are given: files by their sha256, fetched once and kept."""

from __future__ import annotations

from pathlib import Path

from slipway.core import OnEvent, Project, SlipwayError, redact, silent
from slipway.matrix import SourceInput
from slipway.wheels.downloads import KeptFile, fetch_kept_file

_TASK = "fetch inputs"


def input_path(project: Project, wanted: SourceInput) -> Path:
    """Where an input is kept; one that is put there by hand is taken, too."""
    return project.cache / "inputs" / wanted.sha256 / wanted.name


def fetch_source_input(
    project: Project, addon: str, wanted: SourceInput, on_event: OnEvent = silent
) -> Path:
    """The file on disk, verified; fetched where it is not here and whole.

    Raises SlipwayError where its server does not give it, or gives another file.
    """
    path = input_path(project, wanted)
    title = f"{addon}: {wanted.name}"
    return fetch_kept_file(
        KeptFile(path, lambda: wanted.url, wanted.sha256, _TASK, title),
        on_event,
        unavailable=lambda error: SlipwayError(
            f"{title} cannot be had from {error.host}: {error.reason}",
            cure=f"Check `url`, the network and the proxy; or put the file at {path} yourself.",
        ),
        another=lambda actual: SlipwayError(
            f"{addon}: {redact(wanted.url)} gives a file of sha256 {actual}, and "
            f"versions.yaml names {wanted.sha256}",
            cure="A released file never changes: ask who serves it. Where `url` names a "
            "new release, correct `sha256` with it.",
        ),
    )
