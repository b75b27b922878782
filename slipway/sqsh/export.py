"""An image of the engine -> a verified .sqsh and its sidecar."""

from __future__ import annotations

from pathlib import Path

from slipway import __version__
from slipway.engine.client import Engine
from slipway.engine.images import remove_leftovers
from slipway.errors import SlipwayError
from slipway.files import sha256_file
from slipway.report.console import human_bytes
from slipway.report.events import Event, OnEvent, silent
from slipway.sqsh import enroot, pack, partial, preflight, sidecar, source
from slipway.sqsh.options import SqshOptions
from slipway.sqsh.rewrite import Changes, Written, rewrite
from slipway.sqsh.sidecar import Sidecar
from slipway.sqsh.source import SourceImage
from slipway.sqsh.tarhead import TarError

_PROGRESS_BYTES = 16 << 20


def export(
    engine: Engine,
    image_reference: str,
    destination: Path,
    *,
    build_id: str,
    options: SqshOptions | None = None,
    force: bool = False,
    on_event: OnEvent = silent,
    log: Path | None = None,
) -> Sidecar:
    """Write what ``enroot import dockerd://image_reference`` gives to `destination`.

    The image streams from the engine through slipway.sqsh.rewrite into tar2sqfs: no copy is made
    on the way. `destination` and its sidecar appear only when they are whole and checked. A
    destination that holds this image, build and options already is left as it is; one that holds
    anything else is refused unless `force`. The same image gives the same bytes. `log` gets what
    the tools print. Raises SlipwayError; nothing half-made stays, in the engine neither.
    """
    options = options or SqshOptions()
    task = f"sqsh {destination.name}"
    for tool in ("tar2sqfs", "unsquashfs"):
        pack.find_tool(tool)
    image = source.look_up(engine, image_reference)
    wanted = preflight.Wanted(image.id, build_id, options)
    there = preflight.already_there(destination, wanted, force=force)
    if there is not None:
        on_event(Event("cached", task, text=f"{destination} is up to date"))
        return there
    contents = enroot.files(image.config, f"dockerd://{image_reference}")
    on_event(Event("start", task))
    try:
        if destination.parent.is_dir():
            partial.remove_leftovers(destination)
        remove_leftovers(engine)
        warning = preflight.check_room(
            preflight.room(destination), image.size, options, destination
        )
        with partial.partial_file(destination) as path:
            written = _pack(engine, image, path, contents, options, task, on_event, log)
            on_event(Event("progress", task, step="verify"))
            pack.check(path, written, options)
            made = Sidecar(
                reference=image_reference,
                image_id=image.id,
                image_digests=image.digests,
                build_id=build_id,
                sha256=sha256_file(path),
                size=path.stat().st_size,
                entries=written.entries,
                options=options.as_json(),
                slipway=__version__,
            )
            # The sidecar first: see preflight.already_there.
            sidecar.write(destination, made)
            partial.commit(path, destination)
    except BaseException as error:
        on_event(Event("failed", task, text=str(error)))
        raise
    notes = [f"{destination}, {human_bytes(made.size)}"]
    if written.nodes_left_out:
        names = ", ".join("/" + name.decode(errors="replace") for name in written.nodes_left_out)
        notes.append(f"left out, since enroot cannot have device nodes: {names}")
    if warning:
        notes.append(warning)
    on_event(Event("done", task, text="; ".join(notes)))
    return made


def _pack(
    engine: Engine,
    image: SourceImage,
    path: Path,
    contents: dict[str, bytes],
    options: SqshOptions,
    task: str,
    on_event: OnEvent,
    log: Path | None,
) -> Written:
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
            return rewrite(stream.chunks, sink, changes, on_bytes)
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
