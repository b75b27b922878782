"""Layers of steps that run something in the base: an engine has made them once, and their keys say
of what. Here they are taken as they are, and only looked into."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.append.build_steps import NeedsEngineError, read_steps
from slipway.append.layer_blobs import LayerBlob, layer_tar
from slipway.append.layer_files import LayerFile, LayerPlan
from slipway.append.python_layout import PythonLayout
from slipway.core import OnEvent
from slipway.inventory import (
    FOLDER,
    LINK,
    LayeredImage,
    LayerNotes,
    MetadataFiles,
    read_metadata_files,
)
from slipway.registry import FileBlob, digest_of, schema2_manifest
from slipway.squashfs import ReadAhead, decompressed_stream, read_content, skip_content, tar_members

_NO_CONFIG = b"{}"
_REGULAR = b"0\0"
_BYTECODE = re.compile(r".*/__pycache__/[^/]+\.pyc")


def ran_sections(dockerfile: str) -> tuple[str, ...]:
    """The sections of an image whose step runs something in the base, lowest first."""
    return tuple(step.section for step in read_steps(dockerfile) if step.runs_in_base)


def compiled_sections(dockerfile: str) -> tuple[str, ...]:
    """Those of them that leave bytecode and nothing else."""
    return tuple(step.section for step in read_steps(dockerfile) if step.compiles)


def bytecode_tar(pieces: Iterator[bytes], folder: Path) -> Iterator[bytes]:
    """What a step that compiles has left, as a tar that is the same whichever engine ran it.

    Bytecode and its folders; an engine's own tar has besides what it found changed by its mounts,
    and times. `folder` holds the files for as long as they are sorted.
    """
    files: list[LayerFile] = []
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
        with ReadAhead(decompressed_stream(pieces), hashed=False) as stream:
            for member in tar_members(stream):
                text = member.name.decode("utf-8", "surrogateescape")
                if member.kind not in _REGULAR or not _BYTECODE.fullmatch(text):
                    skip_content(stream, member)
                    continue
                kept = Path(name) / str(len(files))
                kept.write_bytes(read_content(stream, member))
                path = posixpath.normpath(f"/{text}").lstrip("/")
                files.append(LayerFile(path, kept, member.stored))
            stream.drain()
        folders = {posixpath.dirname(file.path) for file in files}
        yield from layer_tar(LayerPlan("bytecode", tuple(files), tuple(folders)))


@dataclass(frozen=True)
class _FileBlobs:
    layers: Sequence[LayerBlob]

    def stream(self, digest: str, size: int) -> Iterator[bytes]:
        del size
        (path,) = {layer.path for layer in self.layers if layer.digest == digest}
        yield from FileBlob(path).open(0)


def read_ran_layers(
    layers: Sequence[LayerBlob], notes: LayerNotes, on_event: OnEvent
) -> MetadataFiles:
    """What these layers bring, one on the other. Each is read once."""
    if not layers:
        return MetadataFiles({}, {})
    config = (digest_of(_NO_CONFIG), len(_NO_CONFIG))
    manifest = schema2_manifest(config, [(layer.digest, layer.size) for layer in layers])
    image = LayeredImage("layers of steps that ran", manifest, {}, _FileBlobs(layers))
    return read_metadata_files(image, notes, on_event)


def folders_and_links(files: MetadataFiles) -> dict[str, str]:
    """The kinds of those paths that others may lie below."""
    return {path: kind for path, kind in files.kinds.items() if kind in (FOLDER, LINK)}


def check_no_packages(files: MetadataFiles, layout: PythonLayout) -> None:
    """Raises NeedsEngineError where such a layer brings packages to the interpreter of add-ons:
    what pip then installs beside them follows from all of them together."""
    below = f"{str(layout.site_packages)[1:]}/"
    found = [path for path in files.texts if path.startswith(below) and path.endswith("/METADATA")]
    if found:
        raise NeedsEngineError(
            f"a step that runs in the base leaves Python packages (/{min(found)})",
            cure="Build this image with an engine (without --no-engine).",
        )
