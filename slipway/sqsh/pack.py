"""The host tools that make and read squashfs: tar2sqfs (squashfs-tools-ng) and unsquashfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slipway.errors import SlipwayError
from slipway.sqsh.options import SqshOptions
from slipway.sqsh.rewrite import Written

_PIPE_BYTES = 1 << 20


def find_tool(name: str) -> str:
    """Path of a host tool. Raises SlipwayError where it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise SlipwayError(f"the host tool {name} is not installed", cure="Run `./inv setup`.")
    return found


def tar2sqfs_command(options: SqshOptions, destination: Path, mtime: int) -> list[str]:
    """The command line that reads a tar from stdin. `mtime` is also the superblock's time."""
    command = [find_tool("tar2sqfs"), "--quiet", "--force", "--no-skip"]
    command += ["--compressor", options.compressor, "--block-size", str(options.block_size)]
    if options.level is not None:
        command += ["--comp-extra", f"level={options.level}"]
    jobs = len(os.sched_getaffinity(0))
    return [*command, "--num-jobs", str(jobs), "--defaults", f"mtime={mtime}", str(destination)]


class PackError(SlipwayError):
    """tar2sqfs did not make the file. `refusal`: why the disk takes no more, if that is it."""

    def __init__(self, what: str, *, refusal: str | None, where: str) -> None:
        super().__init__(what, where=where)
        self.refusal = refusal


def _refusal(file: IO[bytes]) -> str | None:
    """Why `file` cannot grow: no space, a quota, a size limit. tar2sqfs says "I/O error" to all."""
    missing = _PIPE_BYTES
    try:
        while missing:
            missing -= file.write(bytes(missing))  # short on the last free blocks, then an error
        os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None


@contextlib.contextmanager
def packer(
    options: SqshOptions, destination: Path, mtime: int, log: Path | None
) -> Iterator[IO[bytes]]:
    """A sink whose tar stream becomes the squashfs `destination`, whole at the end of the block.

    An exception in the block, Ctrl-C included, ends tar2sqfs at once. Raises PackError where
    tar2sqfs fails.
    """
    command = tar2sqfs_command(options, destination, mtime)
    # tar2sqfs unlinks its file when it fails; held open, the file still takes its space, so that
    # one more write tells why.
    with destination.open("ab", buffering=0) as held, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pipesize=_PIPE_BYTES,
            bufsize=_PIPE_BYTES,
            start_new_session=True,  # a Ctrl-C is ours to handle, in one order
        )
        assert process.stdin is not None
        broken = False
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:
            broken = True
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
        if log is not None:
            with log.open("a") as stream:
                stream.write(f"$ {' '.join(command)}\n{text}exit {process.returncode}\n")
        if broken or process.returncode != 0:
            raise _pack_error(process.returncode, text, destination, _refusal(held))


def _pack_error(code: int, text: str, destination: Path, refusal: str | None) -> PackError:
    last = text.strip().splitlines()[-1] if text.strip() else "it said nothing"
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return PackError(f"tar2sqfs {ended}: {last}", refusal=refusal, where=str(destination.parent))


@dataclass(frozen=True)
class Squashfs:
    """What the superblock says, and how many paths below the root the directories list."""

    inodes: int
    compressor: str
    block_size: int
    listed: int


def inspect(path: Path) -> Squashfs:
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
        return Squashfs(
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
        said = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise SlipwayError(f"unsquashfs cannot read the file: {said}", where=str(path))
    return done.stdout


def check(path: Path, written: Written, options: SqshOptions) -> Squashfs:
    """Raise SlipwayError unless `path` holds as many entries as were `written`."""
    found = inspect(path)
    expected = Squashfs(
        inodes=written.inodes,
        # The format has no word for none: such an image names gzip and uses it for no block.
        compressor=options.compressor.replace("none", "gzip"),
        block_size=options.block_size,
        listed=written.entries + written.newlines,
    )
    if found != expected:
        raise SlipwayError(
            f"the new .sqsh is not what was written into it: it has {found}, not {expected}",
            where=str(path),
            cure="Nothing was kept. Try again; if it stays so, report it with the log file.",
        )
    return found
