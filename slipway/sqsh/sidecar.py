"""The `.json` file beside a .sqsh: what it was made from, and what it must hash to."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError
from slipway.squashfs.pieces import Piece, differing

FORMAT = "slipway-sqsh/2"


@dataclass(frozen=True)
class Sidecar:
    """What is known of a .sqsh. It has no date: the same image and options give the same."""

    reference: str  # what the image was called
    image_id: str  # "sha256:...", the hash of the image's config
    image_digests: tuple[str, ...]  # "repository@sha256:..." that registries gave it
    build_id: str
    sha256: str  # of the whole file, as sha256sum prints it
    digest: str  # of `pieces` (slipway.squashfs.pieces.digest); equal for equal content
    pieces: tuple[Piece, ...]  # the whole file, in order
    size: int  # bytes
    entries: int  # paths below the root
    options: dict[str, Any]  # SqshOptions.as_json
    slipway: str  # version that wrote it


def sidecar_path(sqsh: Path) -> Path:
    """Where the sidecar of a .sqsh lies."""
    return sqsh.with_name(sqsh.name + ".json")


def write(sqsh: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of `sqsh`, whole or not at all.

    Not flushed, as the .sqsh itself is not (slipway.sqsh.partial): on ext4 a flush of these few
    bytes would wait for all that was written before, the gigabytes of the .sqsh first.
    """
    data = {"format": FORMAT, **asdict(sidecar)}
    data["pieces"] = [[piece.size, piece.sha256] for piece in sidecar.pieces]
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


def read(sqsh: Path) -> Sidecar | None:
    """The sidecar of `sqsh`, None where there is none. Raises SlipwayError where it is damaged."""
    path = sidecar_path(sqsh)
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format") != FORMAT:
            raise ValueError("unknown format")
        pieces = tuple(Piece(int(size), str(sha256)) for size, sha256 in data["pieces"])
        return Sidecar(**{**data, "image_digests": tuple(data["image_digests"]), "pieces": pieces})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SlipwayError(
            f"this is not a sidecar that this version of Slipway can read ({error})",
            where=str(path),
            cure="Export the image again with --force, or remove the file.",
        ) from error


def verify(sqsh: Path) -> Sidecar:
    """Check every byte of `sqsh` against its sidecar; SlipwayError where it differs."""
    sidecar = read(sqsh)
    if sidecar is None:
        raise SlipwayError(
            "there is no sidecar to check the file against",
            where=str(sidecar_path(sqsh)),
            cure="Copy the .json together with the .sqsh, or export the image again.",
        )
    try:
        size = sqsh.stat().st_size
        wrong = differing(sqsh, sidecar.pieces) if size == sidecar.size else (0, 0)
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
