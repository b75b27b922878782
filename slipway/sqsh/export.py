"""An image of any source -> a verified .sqsh and its sidecar."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import __version__
from slipway.core import (
    Event,
    OnEvent,
    SlipwayError,
    commit,
    disk_space,
    human_bytes,
    nearest_existing,
    partial_file,
    remove_leftovers,
    silent,
)
from slipway.engine import Engine, remove_stale_containers
from slipway.sqsh import destination as preflight
from slipway.sqsh import enroot_files, sidecar, unsquashfs
from slipway.sqsh.packing import Packing
from slipway.sqsh.sidecar import Sidecar
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources import open_engine_image, read_file
from slipway.squashfs import LayerCache, SqshOptions, TarSource

if TYPE_CHECKING:
    from slipway.sqsh.layer_linker import SqshContents


@dataclass(frozen=True)
class ExportRequest:
    """What to write: where, of which build, and how. `force` overwrites whatever is there.

    `own`: the folder is Slipway's, not one that a user named, so that a build which was lost and
    made anew, with another digest, takes the place of its own file.
    `archives`: layers that are at hand as files, by the digests of their tars. They are read in
    place of an engine's folders, which have a time of their own for what a tar does not name.
    """

    destination: Path
    build_id: str
    packing: Packing = field(default_factory=Packing)
    force: bool = False
    archives: Mapping[str, Path] = field(default_factory=dict)
    own: bool = False

    @property
    def task(self) -> str:
        """What events call the export."""
        return f"sqsh {self.destination.name}"


def export_image(
    engine: Engine,
    image_reference: str,
    request: ExportRequest,
    *,
    cache: LayerCache,
    on_event: OnEvent = silent,
    in_place: bool = True,
) -> Sidecar:
    """Write what ``enroot import`` gives for an engine's image to the request's destination.

    Each layer is compiled once (into `cache`), from the engine's own folders where they can be
    read, else from what the engine sends (always so where not `in_place`); the image is linked
    from compiled layers. The destination and its sidecar appear only when they are whole and
    checked. A destination that holds this image, build and options already is left as it is; one
    that holds anything else is refused unless `force`. The same image and packing give the same
    bytes from every source. Raises SlipwayError; nothing half-made stays.
    """
    remove_stale_containers(engine)  # earlier versions made some for their exports
    with open_engine_image(engine, image_reference, cache.folder, in_place=in_place) as image:
        layers = tuple(
            TarSource(layer.digest, partial(read_file, path), path.stat().st_size)
            if (path := request.archives.get(layer.digest))
            else layer
            for layer in image.layers
        )
        image = replace(image, layers=layers)
        return export_source(image, request, cache=cache, on_event=on_event)


def export_source(
    image: SourceImage, request: ExportRequest, *, cache: LayerCache, on_event: OnEvent = silent
) -> Sidecar:
    """Write what ``enroot import`` gives for an image; see `export_image`."""
    unsquashfs.find_tool("unsquashfs")
    wanted = preflight.SqshIdentity(
        image.id, request.build_id, request.packing.options, image.digests
    )
    present = preflight.already_there(
        request.destination, wanted, force=request.force, own=request.own
    )
    if present is not None:
        on_event(Event("cached", request.task, text=f"{request.destination} is up to date"))
        return present
    # What enroot's files cannot say is refused before any work.
    enroot_files.enroot_files(image.config, image.provenance)
    on_event(Event("start", request.task))
    try:
        sidecar, notes = _write(image, request, cache, on_event)
    except BaseException as error:
        on_event(Event("failed", request.task, text=str(error)))
        raise
    on_event(Event("done", request.task, text="; ".join(notes)))
    return sidecar


def _write(
    image: SourceImage, request: ExportRequest, cache: LayerCache, on_event: OnEvent
) -> tuple[Sidecar, list[str]]:
    """The sidecar of the new file, and what to tell of it."""
    destination = request.destination
    if destination.parent.is_dir():
        remove_leftovers(destination)
    room, options = disk_space(destination), request.packing.options
    warning = preflight.check_space(room, image.size, options, destination)
    if _same_file_system(cache.folder, destination):
        missing = _missing_layers(image, cache, options)
        need = preflight.export_disk(missing, image.size, options, room.file_system)
        preflight.check_export_disk(room, need, destination)
    with partial_file(destination) as path:
        packed = _linked(image, request, cache, path, on_event)
        written = Sidecar(
            reference=image.reference,
            image_id=image.id,
            image_digests=image.digests,
            build_id=request.build_id,
            pieces=packed.pieces,
            entries=packed.entries,
            options=request.packing.as_json(),
            slipway=__version__,
            hot=packed.hot,
        )
        # The sidecar first: see preflight.already_there.
        sidecar.write_sidecar(destination, written)
        commit(path, destination)
    notes = [f"{destination}, {human_bytes(written.size)}"]
    if packed.devices_left_out:
        names = ", ".join("/" + name.decode(errors="replace") for name in packed.devices_left_out)
        notes.append(f"left out, since enroot cannot have device nodes: {names}")
    unmountable = enroot_files.unmountable_volumes(image.config)
    if unmountable:
        names = ", ".join(map(repr, unmountable))
        notes.append(f"left out of /etc/fstab, since enroot cannot mount such a VOLUME: {names}")
    notes += filter(None, [image.foreign_architecture, warning])
    return written, notes


def _same_file_system(one: Path, other: Path) -> bool:
    return nearest_existing(one).stat().st_dev == nearest_existing(other).stat().st_dev


def _missing_layers(image: SourceImage, cache: LayerCache, options: SqshOptions) -> list[int]:
    """Unpacked sizes of the layers that the cache does not have; none where layers are folders.

    A blob tells its own size; what it unpacks to is its share of the image's.
    """
    streamed = {layer.digest: layer for layer in image.layers if isinstance(layer, TarSource)}
    if any(layer.digest not in streamed for layer in image.layers):
        return []
    packed = sum(layer.size for layer in streamed.values())
    ratio = image.size / packed if packed else 0.0
    return [
        int(layer.size * ratio)
        for layer in streamed.values()
        if not cache.entry(options.layer_key(layer.digest)).is_dir()
    ]


def _linked(
    image: SourceImage, request: ExportRequest, cache: LayerCache, path: Path, on_event: OnEvent
) -> SqshContents:
    # Here, since most exports find the file there already: linking brings in half of squashfs.
    from slipway.sqsh.layer_linker import link_layers

    try:
        return link_layers(cache, image, path, request.packing, on_event, request.task)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise SlipwayError(
                f"the .sqsh cannot be written: {error.strerror}", where=str(path.parent)
            ) from error
        need = preflight.expected_size(image.size, request.packing.options)
        raise SlipwayError(
            f"the disk takes no more ({error.strerror}): the whole .sqsh takes about"
            f" {human_bytes(need)}",
            where=str(path.parent),
            cure="Nothing was kept. Free some space there, or choose a folder elsewhere.",
        ) from error
