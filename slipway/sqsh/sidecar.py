"""The `.json` file beside a .sqsh: what it was made from, and what it must hash to.

`pieces` has a line `SIZE SHA256` for each stretch of the file, in order, and `digest` is the sha256
of these lines, so that any number of cores checks a file, with no more than coreutils (as the jobs
of a cluster do: slipway/cluster/templates/sqsh.j2). `hot` has a line `START SIZE` for each stretch
that a start reads, which the job reads ahead.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway import squashfs
from slipway.core import (
    DOCUMENT_FAULTS,
    Event,
    OnEvent,
    Piece,
    SlipwayError,
    differing_pieces,
    human_bytes,
    piece_lines,
    pieces_digest,
    silent,
)
from slipway.sqsh import sidecar

if TYPE_CHECKING:
    from slipway.squashfs import ImageCheck

_PROGRESS_BYTES = 64 << 20

FORMAT = "slipway-sqsh/4"
_READABLE = (FORMAT, "slipway-sqsh/3")  # the older one has no `hot`


@dataclass(frozen=True)
class Sidecar:
    """What is known of a .sqsh. It has no date: the same image and options give the same."""

    reference: str  # what the image was called
    image_id: str  # "sha256:...", the hash of the image's config
    image_digests: tuple[str, ...]  # "repository@sha256:..." that registries gave it
    build_id: str
    pieces: tuple[Piece, ...]  # the whole file, in order
    entries: int  # paths below the root
    options: dict[str, Any]  # Packing.as_json
    slipway: str  # version that wrote it
    hot: tuple[tuple[int, int], ...] = ()  # (start, end) of what a start reads

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return sum(piece.size for piece in self.pieces)

    @property
    def digest(self) -> str:
        """One digest of the whole content."""
        return pieces_digest(self.pieces)


@dataclass(frozen=True)
class MadeFrom:
    """Which image a .sqsh was made from, and how: what every version's sidecar says."""

    reference: str
    image_id: str
    build_id: str
    options: dict[str, Any]


def sidecar_path(sqsh: Path) -> Path:
    """Where the sidecar of a .sqsh lies."""
    return sqsh.with_name(sqsh.name + ".json")


def write_sidecar(sqsh: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of `sqsh`, whole or not at all.

    Not flushed, as the .sqsh itself is not (slipway.core.files): on ext4 a flush of these few
    bytes would wait for all that was written before, the gigabytes of the .sqsh first.
    """
    data = asdict(sidecar)
    data |= {"format": FORMAT, "size": sidecar.size, "digest": sidecar.digest}
    data["pieces"] = piece_lines(sidecar.pieces)
    data["hot"] = [f"{start} {end - start}" for start, end in sidecar.hot]
    path = sidecar_path(sqsh)
    half = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        half.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
        half.replace(path)
    except OSError as error:
        raise SlipwayError(
            f"the sidecar cannot be written: {error.strerror}", where=str(path)
        ) from error
    finally:
        half.unlink(missing_ok=True)


def read_sidecar(sqsh: Path) -> Sidecar | None:
    """The sidecar of `sqsh`, None where there is none. Raises SlipwayError where it is damaged."""
    sidecar = read_any_sidecar(sqsh)
    if isinstance(sidecar, MadeFrom):
        raise _unreadable(sqsh, "unknown format")
    return sidecar


def read_any_sidecar(sqsh: Path) -> Sidecar | MadeFrom | None:
    """As `read`; of one that another version of Slipway wrote, what all versions say."""
    try:
        data = json.loads(sidecar_path(sqsh).read_bytes())
        if data.pop("format") not in _READABLE:
            return MadeFrom(data["reference"], data["image_id"], data["build_id"], data["options"])
        size, digest = data.pop("size"), data.pop("digest")
        lines = (line.split() for line in data.pop("pieces"))
        data["pieces"] = tuple(Piece(int(count), sha256) for count, sha256 in lines)
        data["hot"] = tuple(map(_hot_range, data.pop("hot", ())))
        sidecar = Sidecar(**{**data, "image_digests": tuple(data["image_digests"])})
        if (sidecar.size, sidecar.digest) != (size, digest):
            raise ValueError("its pieces do not have its size and digest")
        return sidecar
    except FileNotFoundError:
        return None
    except (OSError, *DOCUMENT_FAULTS) as error:
        raise _unreadable(sqsh, str(error)) from error


def _hot_range(line: str) -> tuple[int, int]:
    start, size = map(int, line.split())
    return start, start + size


def _unreadable(sqsh: Path, why: str) -> SlipwayError:
    return SlipwayError(
        f"this is not a sidecar that this version of Slipway can read ({why})",
        where=str(sidecar_path(sqsh)),
        cure="Export the image again with --force, or remove the file.",
    )


def verify_sqsh(sqsh: Path) -> Sidecar:
    """Check every byte of `sqsh` against its sidecar; SlipwayError where it differs."""
    sidecar = read_sidecar(sqsh)
    if sidecar is None:
        raise SlipwayError(
            "there is no sidecar to check the file against",
            where=str(sidecar_path(sqsh)),
            cure="Copy the .json together with the .sqsh, or export the image again.",
        )
    try:
        size = sqsh.stat().st_size
        wrong = differing_pieces(sqsh, sidecar.pieces) if size == sidecar.size else (0, 0)
    except OSError as error:
        raise SlipwayError(f"cannot be read: {error.strerror}", where=str(sqsh)) from error
    if wrong is not None:
        told = f"it has {size} bytes, the sidecar says {sidecar.size}"
        if size == sidecar.size:
            told = f"bytes {wrong[0]} to {wrong[1]} do not have their sha256"
        raise SlipwayError(
            f"the file is damaged or not the one that its sidecar describes: {told}",
            where=str(sqsh),
            cure="Copy it again, or export the image again with --force.",
        )
    return sidecar


def verify_sqsh_file(path: Path, on_event: OnEvent = silent) -> ImageCheck:
    """Check a .sqsh against its sidecar, then its structure and every byte of its contents.

    Raises SlipwayError with the first thing that is wrong.
    """
    task = f"verify {path.name}"
    on_event(Event("start", task))
    sidecar.verify_sqsh(path)
    done = reported = 0

    def on_bytes(count: int) -> None:
        nonlocal done, reported
        done += count
        if done - reported >= _PROGRESS_BYTES:
            reported = done
            on_event(Event("progress", task, "contents", current=done, unit="B"))

    check = squashfs.check_image(path, on_bytes=on_bytes)
    text = f"{check.entries} paths, {human_bytes(check.content)} of content"
    on_event(Event("done", task, text=text))
    return check
