"""The `.json` file beside a .sqsh: what it was made from, and what it must hash to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError
from slipway.files import sha256_file, write_atomic

FORMAT = "slipway-sqsh/1"


@dataclass(frozen=True)
class Sidecar:
    """What is known of a .sqsh. It has no date: the same image and options give the same."""

    reference: str  # what the image was called
    image_id: str  # "sha256:...", the hash of the image's config
    image_digests: tuple[str, ...]  # "repository@sha256:..." that registries gave it
    build_id: str
    sha256: str
    size: int  # bytes
    entries: int  # paths below the root
    options: dict[str, Any]  # SqshOptions.as_json
    slipway: str  # version that wrote it


def sidecar_path(sqsh: Path) -> Path:
    """Where the sidecar of a .sqsh lies."""
    return sqsh.with_name(sqsh.name + ".json")


def write(sqsh: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of `sqsh`, whole or not at all."""
    text = json.dumps({"format": FORMAT, **asdict(sidecar)}, indent=2, sort_keys=True)
    write_atomic(sidecar_path(sqsh), text + "\n")


def read(sqsh: Path) -> Sidecar | None:
    """The sidecar of `sqsh`, None where there is none. Raises SlipwayError where it is damaged."""
    path = sidecar_path(sqsh)
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format") != FORMAT:
            raise ValueError("unknown format")
        return Sidecar(**{**data, "image_digests": tuple(data["image_digests"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SlipwayError(
            f"this is not a sidecar that this version of Slipway can read ({error})",
            where=str(path),
            cure="Export the image again with --force, or remove the file.",
        ) from error


def verify(sqsh: Path) -> Sidecar:
    """Check size and sha256 of `sqsh` against its sidecar; SlipwayError where they differ."""
    sidecar = read(sqsh)
    if sidecar is None:
        raise SlipwayError(
            "there is no sidecar to check the file against",
            where=str(sidecar_path(sqsh)),
            cure="Copy the .json together with the .sqsh, or export the image again.",
        )
    try:
        size = sqsh.stat().st_size
        digest = sha256_file(sqsh) if size == sidecar.size else None
    except OSError as error:
        raise SlipwayError(f"cannot be read: {error.strerror}", where=str(sqsh)) from error
    if digest is None:
        found, wanted = f"{size} bytes", f"{sidecar.size}"
    else:
        found, wanted = f"sha256 {digest}", sidecar.sha256
    if digest != sidecar.sha256:
        raise SlipwayError(
            f"the file is damaged or not the one that its sidecar describes: it has {found}, the"
            f" sidecar says {wanted}",
            where=str(sqsh),
            cure="Copy it again, or export the image again with --force.",
        )
    return sidecar
