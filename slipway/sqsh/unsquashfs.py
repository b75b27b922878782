"""unsquashfs, the host tool that reads squashfs: a second pair of eyes on what we wrote."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slipway.core import SlipwayError
from slipway.squashfs import SqshOptions


def find_tool(name: str) -> str:
    """Path of a host tool. Raises SlipwayError where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise SlipwayError(f"the host tool {name} is not installed", cure="Run `./inv setup`.")
    return path


@dataclass(frozen=True)
class SqshTables:
    """What the superblock says, and how many paths below the root the directories list."""

    inodes: int
    compressor: str
    block_size: int
    listed: int


def inspect_sqsh(path: Path) -> SqshTables:
    """Read a squashfs's superblock, inode table and directories. Raises SlipwayError if damaged."""
    tool = find_tool("unsquashfs")
    superblock = _run([tool, "-s", str(path)], path).decode(errors="replace")
    fields = {}
    for line in superblock.splitlines():
        words = line.split()
        if words:
            fields[" ".join(words[:-1])] = words[-1]
    listing = _run([tool, "-l", "-no-progress", str(path)], path)
    try:
        return SqshTables(
            inodes=int(fields["Number of inodes"]),
            compressor=fields["Compression"],
            block_size=int(fields["Block size"]),
            listed=listing.count(b"\n") - 1,  # the first line is the root
        )
    except (KeyError, ValueError) as error:
        raise SlipwayError(f"unsquashfs -s gave no {error}", where=str(path)) from error


def _run(command: list[str], path: Path) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        errors = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise SlipwayError(f"unsquashfs cannot read the file: {errors}", where=str(path))
    return done.stdout


def check_sqsh_tables(path: Path, written: ExpectedContents, options: SqshOptions) -> SqshTables:
    """Raise SlipwayError unless `path` holds as many entries as were `written`."""
    tables = inspect_sqsh(path)
    expected = SqshTables(
        inodes=written.inodes,
        # The format has no word for none: such an image names gzip and uses it for no block.
        compressor=options.compressor.replace("none", "gzip"),
        block_size=options.block_size,
        listed=written.entries + written.newlines,
    )
    if tables != expected:
        raise SlipwayError(
            f"the new .sqsh is not what was written into it: it has {tables}, not {expected}",
            where=str(path),
            cure="Nothing was kept. Try again; if it stays so, report it with the log file.",
        )
    return tables


@dataclass(frozen=True)
class ExpectedContents:
    """What the new file holds. `entries` counts paths below the root, `inodes` files."""

    entries: int = 0
    inodes: int = 1  # the root
    newlines: int = 0  # in all paths together; listings have one line more for each
