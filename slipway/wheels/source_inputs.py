"""What builds from source are given: files by their sha256, fetched once and kept."""

from __future__ import annotations

from pathlib import Path

from slipway.core import (
    Event,
    OnEvent,
    Project,
    SlipwayError,
    commit,
    partial_file,
    redact,
    sha256_file,
    silent,
)
from slipway.matrix import SourceInput
from slipway.wheels.downloads import DownloadError, download_file

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
    if path.exists() and sha256_file(path) == wanted.sha256:
        return path
    title = f"{addon}: {wanted.name}"
    on_event(Event("start", _TASK, title))
    try:
        with partial_file(path) as partial:
            try:
                actual = download_file(
                    wanted.url, partial, Event("progress", _TASK, title), on_event
                )
            except DownloadError as error:
                raise SlipwayError(
                    f"{title} cannot be had from {error.host}: {error.reason}",
                    cure=f"Check `url`, the network and the proxy; or put the file at {path} "
                    "yourself.",
                ) from error
            if actual != wanted.sha256:
                raise SlipwayError(
                    f"{addon}: {redact(wanted.url)} gives a file of sha256 {actual}, and "
                    f"versions.yaml names {wanted.sha256}",
                    cure="A released file never changes: ask who serves it. Where `url` names a "
                    "new release, correct `sha256` with it.",
                )
            commit(partial, path)
    except SlipwayError as error:
        on_event(Event("failed", _TASK, title, error.what))
        raise
    on_event(Event("done", _TASK, title))
    return path
