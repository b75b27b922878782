"""What builds from source are given: files by their sha256, fetched once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from slipway.core import (
    Event,
    OnEvent,
    Project,
    SlipwayError,
    commit,
    error_text,
    partial_file,
    redact,
    sha256_file,
    silent,
)
from slipway.matrix import SourceInput

_TASK = "fetch inputs"
_PIECE = 1 << 20
_WAIT_S = 60.0
_ATTEMPTS = 3


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
            actual = _download(wanted, partial, title, on_event)
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


def _download(wanted: SourceInput, partial: Path, title: str, on_event: OnEvent) -> str:
    """Write what the server gives; gives its sha256. A connection that breaks is tried again."""
    failure: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _try_download(wanted, partial, title, on_event)
        except (requests.RequestException, HTTPError) as error:
            failure = error
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code < 500:
                break  # it has an answer, and gives the same one again
    assert failure is not None
    raise SlipwayError(
        f"{title} cannot be had from {urlsplit(wanted.url).netloc}: {error_text(failure)}",
        cure=f"Check `url`, the network and the proxy; or put the file at "
        f"{partial.parent / wanted.name} yourself.",
    ) from failure


def _try_download(wanted: SourceInput, partial: Path, title: str, on_event: OnEvent) -> str:
    hasher = hashlib.sha256()
    received = 0
    # The bytes as they lie there: a server that calls a .tar.gz "encoded" would have it unpacked.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(wanted.url, headers=headers, stream=True, timeout=_WAIT_S) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length") or 0)
        with partial.open("wb") as file:
            for piece in response.raw.stream(_PIECE, decode_content=False):
                hasher.update(piece)
                file.write(piece)
                received += len(piece)
                on_event(Event("progress", _TASK, title, current=received, total=total, unit="B"))
    return hasher.hexdigest()
