"""The topmost layer, which is ours: what enroot, and the engine, add to an image.

The engine's part is what moby/moby:daemon/initlayer/setup_unix.go puts under every container, so
that `docker export`, and with it `enroot import dockerd://`, shows it: empty /etc/hosts,
/etc/hostname and /etc/resolv.conf, /etc/mtab as a link, /proc and /sys. enroot itself leaves out
what is in /dev, and writes the files of slipway.sqsh.enroot.
"""

from __future__ import annotations

from collections.abc import Sequence

from slipway.errors import SlipwayError
from slipway.sqsh import enroot
from slipway.sqsh.origin import Origin
from slipway.squashfs.format import DIR
from slipway.squashfs.layer import Layer
from slipway.squashfs.lookup import kind_of, resolve
from slipway.squashfs.options import Options
from slipway.squashfs.written import LayerWriter

_EMPTY_FILES = (b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")


def config_layer(layers: Sequence[Layer], origin: Origin, options: Options) -> Layer:
    """The layer that goes on top of `layers`.

    Raises SlipwayError where the image has a directory in the place of one of enroot's files, or
    an environment that enroot's format cannot hold.
    """
    image = origin.image
    writer = LayerWriter(options, image.created)
    writer.empty(b"dev")
    if kind_of(layers, b".dockerenv") is not None:
        writer.remove(b".dockerenv")
    if origin.engine_files:
        _engine_files(layers, writer)
    for name, content in sorted(enroot.files(image.config, origin.provenance).items()):
        path = _place(layers, name.encode())
        if kind_of(layers, path) == DIR:
            raise SlipwayError(
                f"/{name} is a directory in {image.reference}, and enroot needs a file there"
            )
        writer.file(path, content)
    working_dir = resolve(layers, image.config.working_dir.encode())
    if working_dir and kind_of(layers, working_dir) is None:
        writer.directory(working_dir)
    return writer.finish()


def _engine_files(layers: Sequence[Layer], writer: LayerWriter) -> None:
    for folder in (b"proc", b"sys"):
        if kind_of(layers, folder) != DIR:
            writer.directory(folder)
    for path in _EMPTY_FILES:
        if kind_of(layers, path) != DIR:
            writer.file(path, b"", 0o755)
    if kind_of(layers, b"etc/mtab") != DIR:
        writer.symlink(b"etc/mtab", b"/proc/mounts")


def _place(layers: Sequence[Layer], path: bytes) -> bytes:
    """The path with its parents' symbolic links followed."""
    parent, _, name = path.rpartition(b"/")
    return resolve(layers, parent) + b"/" + name
