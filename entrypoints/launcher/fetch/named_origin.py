"""The origin that a URI names: a shared folder, a registry, S3, or whoever started this program."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

from launcher.causes import LaunchUsageError
from launcher.fetch.origin import CutError, Origin, OriginFile
from launcher.fetch.sqsh_sidecar import (
    LARGEST_SIDECAR,
    FetchError,
    FilePiece,
    check_name,
    parse_sidecar,
    sidecar_of,
)

#: Whoever started this program and talks to it by stdin and stdout.
SENDER = "sender:"
_BUFFER = 1 << 20


class FolderOrigin:
    """A .sqsh with its sidecar in a folder that this node can read."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path

    def describe(self) -> OriginFile:
        """As Origin says."""
        name = check_name(self._path.name, self.where)
        beside = sidecar_of(self._path)
        try:
            with beside.open("rb") as stream:
                raw = stream.read(LARGEST_SIDECAR + 1)
        except FileNotFoundError as error:
            raise FetchError(
                f"{beside} is not there: a .sqsh is fetched by its sidecar, copy the two together"
            ) from error
        except OSError as error:
            raise CutError(f"{beside}: {error.strerror}") from error
        return OriginFile(name, parse_sidecar(raw, str(beside)))

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        """As Origin says."""
        try:
            with self._path.open("rb", buffering=0) as stream:
                at, left = piece.starts[0] + offset, piece.size - offset
                while left:
                    data = os.pread(stream.fileno(), min(_BUFFER, left), at)
                    if not data:
                        raise FetchError(f"{self.where} is shorter than its sidecar says")
                    yield data
                    at, left = at + len(data), left - len(data)
        except OSError as error:
            raise CutError(f"{self.where}: {error.strerror or error}") from error


def open_origin(uri: str, env: Mapping[str, str], *, plain_http: bool = False) -> Origin:
    """The origin that a URI names. Raises LaunchUsageError for another kind."""
    if uri.startswith("registry://"):
        from launcher.fetch.registry_origin import RegistryOrigin

        return RegistryOrigin(uri, env, plain_http=plain_http)
    if uri.startswith("s3://"):
        from launcher.fetch.s3_origin import S3Origin

        return S3Origin(uri, env)
    if uri == SENDER:
        from launcher.fetch.sender_origin import SenderOrigin

        return SenderOrigin(sys.stdin.buffer, sys.stdout.buffer)
    if uri.startswith("/") and uri.endswith(".sqsh"):
        return FolderOrigin(Path(uri))
    raise LaunchUsageError(
        f"{uri!r} is nothing to fetch: give registry://HOST/REPOSITORY:TAG,"
        " registry://HOST/REPOSITORY@sha256:DIGEST, s3://BUCKET/NAME.sqsh or /FOLDER/NAME.sqsh"
    )
