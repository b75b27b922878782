"""An image -> a verified .sqsh and its sidecar."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from slipway import __version__
from slipway.core import (
    Event,
    OnEvent,
    SlipwayError,
    commit,
    disk_space,
    human_bytes,
    partial_file,
    remove_leftovers,
    silent,
)
from slipway.engine import Engine, remove_stale_containers
from slipway.sqsh import destination as preflight
from slipway.sqsh import enroot_files, sidecar, unsquashfs
from slipway.sqsh.layer_linker import SqshContents, link_layers
from slipway.sqsh.sidecar import Sidecar
from slipway.sqsh.source_image import ImageFacts, SourceImage
from slipway.sqsh.sources import find_engine_image, find_overlay_layers
from slipway.sqsh.tar2sqfs import check_streaming, stream_image
from slipway.squashfs import LayerCache, OverlayUnreadableError, SqshOptions


def export_image(
    engine: Engine,
    image_reference: str,
    destination: Path,
    *,
    cache: LayerCache,
    build_id: str,
    options: SqshOptions | None = None,
    force: bool = False,
    on_event: OnEvent = silent,
    log: Path | None = None,
    stream: bool = False,
) -> Sidecar:
    """Write what ``enroot import dockerd://image_reference`` gives to `destination`.

    Where the engine's layer directories can be read, each layer is compiled once (into `cache`)
    and the image is linked from them; elsewhere, or with `stream`, the image streams from the
    engine through slipway.sqsh.tar_rewrite into tar2sqfs. `destination` and its sidecar appear only
    when they are whole and checked. A destination that holds this image, build and options already
    is left as it is; one that holds anything else is refused unless `force`. The same image gives
    the same bytes by the same route. `log` gets what the tools print. Raises SlipwayError; nothing
    half-made stays, in the engine neither.
    """
    options = options or SqshOptions()
    task = f"sqsh {destination.name}"
    unsquashfs.find_tool("unsquashfs")
    image = find_engine_image(engine, image_reference)
    there = _already_there(destination, image, build_id, options, force, task, on_event)
    if there is not None:
        return there
    enroot_files.enroot_files(
        image.config, image_reference
    )  # what it refuses is refused before any work
    origin = None if stream else find_overlay_layers(engine, image)
    if origin is None:
        check_streaming(options)
    remove_stale_containers(engine)

    def streamed(path: Path) -> SqshContents:
        return stream_image(engine, image, path, options, task, on_event, log)

    def linked(path: Path) -> SqshContents:
        if origin is None:
            return streamed(path)
        try:
            return link_layers(cache, origin, path, options, on_event, task)
        except OverlayUnreadableError:
            check_streaming(options)
            return streamed(path)

    return _write(image, destination, build_id, options, task, on_event, linked)


def export_source(
    origin: SourceImage,
    destination: Path,
    *,
    cache: LayerCache,
    build_id: str,
    options: SqshOptions | None = None,
    force: bool = False,
    on_event: OnEvent = silent,
) -> Sidecar:
    """Write what ``enroot import`` gives for an image outside of an engine; as `export`."""
    options = options or SqshOptions()
    task = f"sqsh {destination.name}"
    unsquashfs.find_tool("unsquashfs")
    image = origin.image
    there = _already_there(destination, image, build_id, options, force, task, on_event)
    if there is not None:
        return there

    def linked(path: Path) -> SqshContents:
        return link_layers(cache, origin, path, options, on_event, task)

    return _write(image, destination, build_id, options, task, on_event, linked)


def _already_there(
    destination: Path,
    image: ImageFacts,
    build_id: str,
    options: SqshOptions,
    force: bool,
    task: str,
    on_event: OnEvent,
) -> Sidecar | None:
    wanted = preflight.SqshIdentity(image.id, build_id, options)
    there = preflight.already_there(destination, wanted, force=force)
    if there is not None:
        on_event(Event("cached", task, text=f"{destination} is up to date"))
    return there


def _write(
    image: ImageFacts,
    destination: Path,
    build_id: str,
    options: SqshOptions,
    task: str,
    on_event: OnEvent,
    packed_into: Callable[[Path], SqshContents],
) -> Sidecar:
    on_event(Event("start", task))
    try:
        if destination.parent.is_dir():
            remove_leftovers(destination)
        warning = preflight.check_space(disk_space(destination), image.size, options, destination)
        with partial_file(destination) as path:
            packed = _packed(packed_into, path, image, options)
            made = Sidecar(
                reference=image.reference,
                image_id=image.id,
                image_digests=image.digests,
                build_id=build_id,
                pieces=packed.pieces,
                entries=packed.entries,
                options=options.as_json(),
                slipway=__version__,
            )
            # The sidecar first: see preflight.already_there.
            sidecar.write_sidecar(destination, made)
            commit(path, destination)
    except BaseException as error:
        on_event(Event("failed", task, text=str(error)))
        raise
    notes = [f"{destination}, {human_bytes(made.size)}"]
    if packed.devices_left_out:
        names = ", ".join("/" + name.decode(errors="replace") for name in packed.devices_left_out)
        notes.append(f"left out, since enroot cannot have device nodes: {names}")
    if warning:
        notes.append(warning)
    on_event(Event("done", task, text="; ".join(notes)))
    return made


def _packed(
    packed_into: Callable[[Path], SqshContents],
    path: Path,
    image: ImageFacts,
    options: SqshOptions,
) -> SqshContents:
    try:
        return packed_into(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise SlipwayError(
                f"the .sqsh cannot be written: {error.strerror}", where=str(path.parent)
            ) from error
        need = preflight.expected_size(image.size, options)
        raise SlipwayError(
            f"the disk takes no more ({error.strerror}): the whole .sqsh takes about"
            f" {human_bytes(need)}",
            where=str(path.parent),
            cure="Nothing was kept. Free some space there, or choose a folder elsewhere.",
        ) from error
