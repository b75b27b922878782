"""The route for engines whose layers cannot be read in place: `docker export` into tar2sqfs."""

from __future__ import annotations

from pathlib import Path

from slipway.engine.client import Engine
from slipway.errors import SlipwayError, UsageError
from slipway.report.console import human_bytes
from slipway.report.events import Event, OnEvent
from slipway.sqsh import enroot, pack, preflight, source
from slipway.sqsh.linking import Packed
from slipway.sqsh.options import SqshOptions
from slipway.sqsh.rewrite import Changes, rewrite
from slipway.sqsh.source import SourceImage
from slipway.sqsh.tarhead import TarError
from slipway.squashfs import pieces

_PROGRESS_BYTES = 16 << 20


def check_streaming(options: SqshOptions) -> None:
    """Raise SlipwayError where this route cannot be taken."""
    if options.compressor == "none":
        raise UsageError(
            "an image that has to be streamed from its engine cannot be stored uncompressed",
            cure="Choose lz4, or use an engine on this machine with the overlay2 store.",
        )
    pack.find_tool("tar2sqfs")


def stream_image(
    engine: Engine,
    image: SourceImage,
    path: Path,
    options: SqshOptions,
    task: str,
    on_event: OnEvent,
    log: Path | None,
) -> Packed:
    """Write the image into `path`; no copy is made on the way. Raises SlipwayError."""
    contents = enroot.files(image.config, f"dockerd://{image.reference}")
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
            source.exported(engine, image) as stream,
            pack.packer(options, path, image.created, log) as sink,
        ):
            changes = Changes(
                files=contents,
                working_dir=image.config.working_dir,
                created=image.created,
                touched_after=stream.touched_after,
            )
            written = rewrite(stream.chunks, sink, changes, on_bytes)
        on_event(Event("progress", task, step="verify"))
        pack.check(path, written, options)
        return Packed(written.entries, tuple(written.nodes_left_out), pieces.of_file(path))
    except TarError as error:
        raise SlipwayError(
            f"the engine's export of {image.reference} cannot be packed: {error}"
        ) from error
    except pack.PackError as error:
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
