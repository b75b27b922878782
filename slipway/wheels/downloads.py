"""A file that is known by its hash: kept once it is here, else fetched from a server."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from slipway.core import (
    Event,
    OnEvent,
    SlipwayError,
    commit,
    error_text,
    partial_file,
    sha256_file,
)

_PIECE = 1 << 20
_WAIT_S = 60.0
_ATTEMPTS = 3


class DownloadError(Exception):
    """A server does not give a file. `status` is its answer's, 0 for none."""

    def __init__(self, host: str, status: int, reason: str) -> None:
        super().__init__(f"{host}: {reason}")
        self.host, self.status, self.reason = host, status, reason


@dataclass(frozen=True)
class KeptFile:
    """A file by its sha256: where it is kept, where it comes from, and what events call it.

    `locate` gives its URL; a file that is here does not need one, nor who would know it.
    """

    path: Path
    locate: Callable[[], str]
    sha256: str
    task: str
    title: str


def fetch_kept_file(
    file: KeptFile,
    on_event: OnEvent,
    *,
    unavailable: Callable[[DownloadError], SlipwayError],
    another: Callable[[str], SlipwayError],
) -> Path:
    """The file on disk, verified; fetched where it is not here and whole.

    Raises what `locate` does, what `unavailable` makes of a server that does not give the file, or
    `another` of the sha256 of one that it gives in its place.
    """
    if file.path.exists() and sha256_file(file.path) == file.sha256:
        return file.path
    url = file.locate()
    on_event(Event("start", file.task, file.title))
    try:
        with partial_file(file.path) as partial:
            try:
                progress = Event("progress", file.task, file.title)
                actual = _download(url, partial, progress, on_event)
            except DownloadError as error:
                raise unavailable(error) from error
            if actual != file.sha256:
                raise another(actual)
            commit(partial, file.path)
    except SlipwayError as error:
        on_event(Event("failed", file.task, file.title, error.what))
        raise
    on_event(Event("done", file.task, file.title))
    return file.path


def _download(url: str, partial: Path, progress: Event, on_event: OnEvent) -> str:
    """Write what the server gives; gives its sha256. A connection that breaks is tried again."""
    failure: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _try_download(url, partial, progress, on_event)
        except (requests.RequestException, HTTPError) as error:
            failure = error
            if 0 < _status(error) < 500:
                break  # it has an answer, and gives the same one again
    assert failure is not None
    raise DownloadError(
        urlsplit(url).netloc.rpartition("@")[2], _status(failure), error_text(failure)
    ) from failure


def _status(error: Exception) -> int:
    answer = getattr(error, "response", None)
    return answer.status_code if answer is not None else 0


def _try_download(url: str, partial: Path, progress: Event, on_event: OnEvent) -> str:
    hasher = hashlib.sha256()
    received = 0
    # The bytes as they lie there: a server that calls a .tar.gz "encoded" would have it unpacked.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=_WAIT_S) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length") or 0)
        with partial.open("wb") as file:
            for piece in response.raw.stream(_PIECE, decode_content=False):
                hasher.update(piece)
                file.write(piece)
                received += len(piece)
                on_event(dataclasses.replace(progress, current=received, total=total, unit="B"))
    return hasher.hexdigest()
