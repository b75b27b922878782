"""What all places have in common that a file comes from in the first place.

An origin gives the sidecar and, for a piece, its bytes from an offset on. What it gives is checked
by whoever asked; here only lengths are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from launcher import events
from launcher.fetch.partial_file import PartialFile
from launcher.fetch.sqsh_sidecar import (
    FetchError,
    FilePiece,
    SqshSidecar,
)
from launcher.stop_request import StopRequest

#: Cuts in a row, without a byte in between, after which an origin counts as gone.
ATTEMPTS = 8
LONGEST_PAUSE = 15.0


class CutError(OSError):
    """The origin ended in the middle, or does not answer: another try may go on from there."""


@dataclass(frozen=True)
class OriginFile:
    """What an origin says of its file."""

    name: str
    sidecar: SqshSidecar


class Origin(Protocol):
    """A place that has a whole .sqsh. `where` is for people."""

    where: str

    def describe(self) -> OriginFile:
        """The file's name and its checked sidecar. Raises FetchError, and CutError."""

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        """A piece's bytes from an offset on. Raises FetchError, and CutError where it was cut."""


def describe_origin(origin: Origin, halt: StopRequest) -> OriginFile:
    """What the origin says, asked again after a cut. Raises FetchError in the end."""
    failures = 0
    while True:
        try:
            return origin.describe()
        except CutError as error:
            failures += 1
            _pause(failures, origin, error, halt)


def fetch_from_origin(
    origin: Origin, file: PartialFile, number: int, halt: StopRequest
) -> tuple[int, int]:
    """Bring a piece into the file; the bytes that came, and how often it came with another digest.

    After a cut it goes on where it stopped. Raises FetchError where the origin stays away, or sends
    something else a second time.
    """
    piece = file.sidecar.pieces[number]
    came = 0
    for last in (False, True):
        hasher, offset, failures = hashlib.sha256(), 0, 0
        while offset < piece.size:
            try:
                with closing(origin.read(piece, offset)) as data:
                    for part in data:
                        halt.check()
                        came += len(part)
                        if offset + len(part) > piece.size:
                            raise FetchError(
                                f"{origin.where} sends more than the {piece.size} bytes of piece"
                                f" {piece.sha256[:12]}"
                            )
                        file.write(number, offset, part)
                        hasher.update(part)
                        offset += len(part)
                        failures = 0
                if offset < piece.size:
                    raise CutError("it ended early")
            except CutError as error:
                failures += 1
                _pause(failures, origin, error, halt)
        if hasher.hexdigest() == piece.sha256:
            return came, int(last)
        events.emit("fetch-damaged", origin=origin.where, piece=piece.sha256, again=not last)
    raise FetchError(
        f"{origin.where} has other bytes than its sidecar says, in piece {piece.sha256[:12]} at"
        f" {piece.starts[0]} (asked twice): export or push the file again"
    )


def _pause(failures: int, origin: Origin, error: CutError, halt: StopRequest) -> None:
    if failures >= ATTEMPTS:
        raise FetchError(
            f"{origin.where} does not answer to the end: {error}. What has come is kept: the same"
            " command goes on from there"
        ) from error
    pause = min(LONGEST_PAUSE, 0.25 * 2**failures)
    events.emit("fetch-cut", origin=origin.where, error=str(error), again_in=pause)
    halt.sleep(pause)
