"""How a job's `.sqsh` comes to the disks of its nodes, before anything else: `--fetch`."""

from __future__ import annotations

import base64
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from slipway.cluster import option_values
from slipway.cluster.sqsh_file import SqshFile
from slipway.core import UsageError
from slipway.sqsh import fetch_program

SHARED, SBCAST = "shared", "sbcast"
_URI = re.compile(r"registry://[A-Za-z0-9.:\[\]/_@-]+|s3://[a-z0-9][a-z0-9.-]+/[\w./+=@-]+\.sqsh")
_COLUMNS = 120


@dataclass(frozen=True)
class SqshFetch:
    """Where from: `uri`, or the file of --sqsh where that is None; and how.

    `folder` None: the first disk of the node that there is. `program` has the lines of the node's
    program in base64; none where Slurm's sbcast does the work.
    """

    uri: str | None
    folder: str | None
    program: tuple[str, ...]


def make_sqsh_fetch(way: str, folder: str, sqsh: SqshFile, launcher: Path) -> SqshFetch | None:
    """Check `--fetch` and `--fetch-to`; None where nothing is fetched."""
    if not way:
        if folder:
            raise UsageError(
                "--fetch-to is where --fetch brings the file",
                cure=f"Give --fetch {SHARED}, {SBCAST} or registry://HOST/REPOSITORY:TAG.",
            )
        return None
    to = option_values.absolute_path(folder, "--fetch-to") if folder else None
    if to == str(Path(sqsh.path).parent):
        raise UsageError(
            f"--fetch-to {to} is where the file comes from", cure="Name a folder of the node's own."
        )
    if way == SBCAST:
        return SqshFetch(None, to, ())
    if way != SHARED and not _URI.fullmatch(way):
        raise UsageError(
            f"--fetch {way!r}: expected {SHARED}, {SBCAST}, registry://HOST/REPOSITORY:TAG or"
            " s3://BUCKET/NAME.sqsh"
        )
    if way != SHARED and sqsh.digest is None:
        raise UsageError(
            f"--fetch {way}: nothing is known here of the .sqsh that the nodes are to get",
            cure="Export it here (`./inv sqsh NAME --push`), and leave out --sqsh.",
        )
    encoded = base64.b64encode(fetch_program(launcher)).decode("ascii")
    lines = tuple(textwrap.wrap(encoded, _COLUMNS))
    return SqshFetch(None if way == SHARED else way, to, lines)
