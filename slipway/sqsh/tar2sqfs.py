"""The route for engines whose layers cannot be read in place: `docker export` into tar2sqfs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slipway.core import Event, OnEvent, SlipwayError, UsageError, hash_file, human_bytes
from slipway.engine import Engine
from slipway.sqsh import destination as preflight
from slipway.sqsh import enroot_files, unsquashfs
from slipway.sqsh.layer_linker import SqshContents
from slipway.sqsh.source_image import ImageFacts
from slipway.sqsh.sources import container_export
from slipway.sqsh.tar_headers import TarError
from slipway.sqsh.tar_rewrite import TarChanges, rewrite_tar
from slipway.sqsh.unsquashfs import find_tool
from slipway.squashfs import SqshOptions

_PIPE_BYTES = 1 << 20

_PROGRESS_BYTES = 16 << 20


def check_streaming(options: SqshOptions) -> None:
    """Raise SlipwayError where this route cannot be taken."""
    if options.compressor == "none":
        raise UsageError(
            "an image that has to be streamed from its engine cannot be stored uncompressed",
            cure="Choose lz4, or use an engine on this machine with the overlay2 store.",
        )
    unsquashfs.find_tool("tar2sqfs")


def stream_image(
    engine: Engine,
    image: ImageFacts,
    path: Path,
    options: SqshOptions,
    task: str,
    on_event: OnEvent,
    log: Path | None,
) -> SqshContents:
    """Write the image into `path`; no copy is made on the way. Raises SlipwayError."""
    contents = enroot_files.enroot_files(image.config, f"dockerd://{image.reference}")
    done = reported = 0

    def on_bytes(count: int) -> None:
        nonlocal done, reported
        done += count
        if done - reported >= _PROGRESS_BYTES:
            reported = done
            total = max(image.size, done)
            on_event(Event("progress", task, "pack", current=done, total=total, unit="B"))

    try:
        with (
            container_export(engine, image) as stream,
            start_packer(options, path, image.created, log) as sink,
        ):
            changes = TarChanges(
                files=contents,
                working_dir=image.config.working_dir,
                created=image.created,
                touched_after=stream.touched_after,
            )
            written = rewrite_tar(stream.chunks, sink, changes, on_bytes)
        on_event(Event("progress", task, step="verify"))
        unsquashfs.check_sqsh_tables(path, written, options)
        return SqshContents(written.entries, tuple(written.nodes_left_out), hash_file(path))
    except TarError as error:
        raise SlipwayError(
            f"the engine's export of {image.reference} cannot be packed: {error}"
        ) from error
    except PackError as error:
        if error.refusal is None:
            raise
        need = preflight.expected_size(image.size, options)
        raise SlipwayError(
            f"the disk takes no more ({error.refusal}): {human_bytes(done)} of the image's"
            f" {human_bytes(image.size)} were packed; the whole .sqsh takes about"
            f" {human_bytes(need)}",
            where=str(path.parent),
            cure="Nothing was kept. Free some space there, or choose a folder elsewhere.",
        ) from error


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
def start_packer(
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
