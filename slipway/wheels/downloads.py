"""A file from a server, with its hash; who asked for it says what the hash has to be."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from slipway.core import Event, OnEvent, error_text

_PIECE = 1 << 20
_WAIT_S = 60.0
_ATTEMPTS = 3


class DownloadError(Exception):
    """A server does not give a file. `status` is its answer's, 0 for none."""

    def __init__(self, host: str, status: int, reason: str) -> None:
        super().__init__(f"{host}: {reason}")
        self.host, self.status, self.reason = host, status, reason


def download_file(url: str, partial: Path, progress: Event, on_event: OnEvent) -> str:
    """Write what the server gives; gives its sha256. A connection that breaks is tried again.

    `progress` names whose bytes are told. Raises DownloadError.
    """
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
