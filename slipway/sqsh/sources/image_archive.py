"""An image as a tar file: what `docker save`, skopeo and `docker buildx -o type=oci` write.

Two forms, and files that are both: an OCI layout in a tar, and docker's own with a manifest.json,
whose layers are plain tars under any name (moby/moby:image/tarexport). Nothing is unpacked: blobs
are read where they lie in the file.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from slipway.core import SlipwayError
from slipway.registry import digest_of
from slipway.sqsh.image_documents import (
    CONFIG_MAX,
    MANIFEST_MAX,
    ImageDescription,
    ImageIndex,
    ImageMetadataError,
    parse_image_config,
    parse_list,
    parse_manifest,
)
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources.blob_store import ImageFinder, matches_name, stored_image
from slipway.sqsh.sources.oci_layout import read_file
from slipway.squashfs import (
    LayerError,
    TarSource,
    decompressed_stream,
    skip_content,
    tar_members,
)

_PIECE = 1 << 20
_LINKS_MAX = 40
_LINK_KINDS = b"12"


class _FileStream:
    """A tar file's headers; contents are passed over without reading them."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self.position = 0

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position >= self._size

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = os.pread(self._handle, size, self.position)
        if len(data) < size:
            raise LayerError("the archive ends in the middle")
        self.position += size
        return data

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        if self.position + size > self._size:
            raise LayerError("the archive ends in the middle")
        self.position += size

    def skip_padding(self, size: int) -> None:
        """Pass over so many bytes, or over what is left."""
        self.position = min(self.position + size, self._size)


@dataclass(frozen=True)
class _Span:
    start: int
    size: int


class ArchiveBlobs:
    """The members of an open archive, by name; blobs by digest."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Read the archive's headers. Raises SlipwayError where it is none."""
        self.where = where
        self._handle = file.fileno()
        self._spans: dict[str, _Span] = {}
        self._links: dict[str, str] = {}
        stream = _FileStream(self._handle)
        try:
            for member in tar_members(stream):
                name = _clean(member.name.decode(errors="surrogateescape"))
                start = stream.position
                skip_content(stream, member)
                self._spans.pop(name, None)
                self._links.pop(name, None)
                if member.kind in _LINK_KINDS:
                    # docker before 25 writes a layer that is there twice as a symbolic link.
                    target = member.link.decode(errors="surrogateescape")
                    if member.kind == _LINK_KINDS[1]:
                        target = posixpath.join(posixpath.dirname(name), target)
                    self._links[name] = _clean(target)
                elif member.has_content:
                    self._spans[name] = _Span(start, member.size)
        except (LayerError, OSError) as error:
            raise ImageMetadataError(
                f"this is not an image's archive ({error})", where=where
            ) from error

    def span(self, name: str) -> _Span | None:
        """Where a member's content is; links are followed inside the archive."""
        for _ in range(_LINKS_MAX):
            if name not in self._links:
                break
            name = self._links[name]
        return self._spans.get(name)

    def content(self, name: str) -> Iterator[bytes]:
        """A member in pieces."""
        span = self.span(name)
        if span is None:
            raise ImageMetadataError(f"the archive has no {name!r}", where=self.where)
        done = 0
        while done < span.size:
            piece = os.pread(self._handle, min(_PIECE, span.size - done), span.start + done)
            if not piece:
                raise LayerError("the archive ends in the middle", where=self.where)
            done += len(piece)
            yield piece

    def small(self, name: str, limit: int) -> bytes:
        """All of a small member."""
        span = self.span(name)
        if span is not None and span.size > limit:
            raise ImageMetadataError(f"{name!r} has more than {limit} bytes", where=self.where)
        return b"".join(self.content(name))

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.span(_blob_name(digest)) is not None

    def blob_stream(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces."""
        return self.content(_blob_name(digest))

    manifest_stream = blob_stream


def _clean(name: str) -> str:
    return posixpath.normpath(f"/{name}").lstrip("/")


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


@contextmanager
def open_archive(path: Path, spool: Path) -> Iterator[ArchiveBlobs]:
    """An archive, plain or compressed; a compressed one is unpacked into a nameless file.

    That file is on `spool`'s file system and gone at the end. Raises SlipwayError.
    """
    pieces = read_file(path)
    head = next(pieces, b"")
    if head[257:262] == b"ustar":
        with path.open("rb") as file:
            yield ArchiveBlobs(file, str(path))
        return

    def all_pieces() -> Iterator[bytes]:
        yield head
        yield from pieces

    with spooled(decompressed_stream(all_pieces()), spool) as unpacked:
        yield ArchiveBlobs(unpacked, str(path))


@contextmanager
def spooled(pieces: Iterable[bytes], folder: Path) -> Iterator[BinaryIO]:
    """A stream in a file that has no name, so that nothing is left whatever ends us."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed below
    except OSError as error:
        raise _spool_error(folder, error) from error
    with file:
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
        except OSError as error:
            raise _spool_error(folder, error) from error
        yield file


def _spool_error(folder: Path, error: OSError) -> SlipwayError:
    return SlipwayError(
        f"the image's archive cannot be kept there: {error.strerror}",
        where=str(folder),
        cure="Free some space there: it holds the whole image for as long as its layers are read.",
    )


@dataclass(frozen=True)
class _ArchivedImage:
    """An image of docker's own form."""

    config_name: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


def archive_image(
    blobs: ArchiveBlobs, wanted: str = "", diff_ids: tuple[str, ...] | None = None
) -> SourceImage:
    """The one image of an archive, the one `wanted` by name, tag or digest, or that of `diff_ids`.

    Raises SlipwayError.
    """
    if blobs.span("manifest.json") is not None:
        return _docker_image(blobs, wanted, diff_ids)
    if blobs.span("index.json") is None:
        raise ImageMetadataError(
            "this is no image's archive: it has neither index.json nor manifest.json",
            where=blobs.where,
        )
    index = parse_manifest(blobs.small("index.json", MANIFEST_MAX), f"{blobs.where}, index.json")
    if not isinstance(index, ImageIndex):
        raise ImageMetadataError("its index.json is no index", where=blobs.where)
    finder = ImageFinder(blobs)
    if diff_ids is not None:
        for image in finder.images(index.entries).values():
            description = finder.description(image)
            if description.diff_ids == diff_ids:
                return stored_image(blobs, image, description, blobs.where)
        raise ImageMetadataError("the archive does not have the image", where=blobs.where)
    image = finder.the_image(index.entries, wanted)
    name = (image.names or (Path(blobs.where).name,))[0]
    return stored_image(blobs, image, finder.description(image), f"{name}@{image.digest}")


def _docker_image(
    blobs: ArchiveBlobs, wanted: str, diff_ids: tuple[str, ...] | None
) -> SourceImage:
    where = f"{blobs.where}, manifest.json"
    raw = blobs.small("manifest.json", MANIFEST_MAX)
    unique: dict[str, _ArchivedImage] = {}
    for entry in parse_list(raw, where, "manifest.json"):
        image = _ArchivedImage(
            _clean(entry.text("Config")),
            entry.texts("RepoTags"),
            tuple(map(_clean, entry.texts("Layers"))),
        )
        before = unique.get(image.config_name)
        names = (*before.names, *image.names) if before else image.names
        unique[image.config_name] = _ArchivedImage(image.config_name, names, image.layers)
    images: list[tuple[_ArchivedImage, str, ImageDescription]] = []
    for image in unique.values():
        config = blobs.small(image.config_name, CONFIG_MAX)
        digest = digest_of(config)
        description = parse_image_config(config, f"{blobs.where}, {image.config_name}")
        if diff_ids is not None and description.diff_ids != diff_ids:
            continue
        if wanted and not any(matches_name(name, wanted) for name in (digest, *image.names)):
            continue
        images.append((image, digest, description))
    if not unique:
        raise ImageMetadataError(
            "the archive has no image: its manifest.json lists none", where=where
        )
    if len(images) != 1:
        listed = ", ".join(
            (image.names or (image.config_name[:19],))[0] for image in unique.values()
        )
        count = f"{len(images)} such images, not one" if images else f"no image {wanted!r}, only"
        raise ImageMetadataError(
            f"the archive has {count}: {listed[:500]}",
            where=blobs.where,
            cure="Say which one by its name at the end: docker-archive:FILE:NAME:TAG.",
        )
    image, digest, description = images[0]
    if len(image.layers) != len(description.diff_ids):
        raise ImageMetadataError(
            f"the image has {len(image.layers)} layers and its configuration"
            f" {len(description.diff_ids)}",
            where=where,
        )
    spans = [blobs.span(name) for name in image.layers]
    sizes = [span.size if span is not None else 0 for span in spans]
    name = (image.names or (Path(blobs.where).name,))[0]
    return SourceImage(
        reference=name,
        id=digest,
        digests=(),
        digest=digest,
        size=sum(sizes),
        architecture=description.architecture,
        created=description.created,
        config=description.config,
        layers=tuple(
            TarSource(diff_id, _Member(blobs, name).pieces, size)
            for diff_id, name, size in zip(description.diff_ids, image.layers, sizes, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Member:
    blobs: ArchiveBlobs
    name: str

    def pieces(self) -> Iterator[bytes]:
        """All of the member; the compiler checks what it unpacks to."""
        return self.blobs.content(self.name)
