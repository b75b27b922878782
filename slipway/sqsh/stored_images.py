"""What `inv sqsh` does without an engine: export images of registries, layouts and archives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.core import CredentialsFor, OnEvent, Project, SlipwayError, UsageError, silent
from slipway.registry import RegistryClient, Repository
from slipway.sqsh.export import ExportRequest, export_source
from slipway.sqsh.image_documents import ImageIndex
from slipway.sqsh.packing import Packing
from slipway.sqsh.pushed_file import PushedFile, push_sqsh
from slipway.sqsh.sidecar import Sidecar
from slipway.sqsh.source_image import SourceImage
from slipway.sqsh.sources import (
    BlobStore,
    ImageFinder,
    StoredManifest,
    archive_image,
    flat_image,
    layout_image,
    open_archive,
    registry_image,
    stored_image,
)
from slipway.squashfs import DEFAULT_LIMIT, LayerCache, SqshOptions, layer_cache

_REFERENCE = re.compile(
    r"(?P<host>[^/]+)/(?P<repository>[^@]+?)"
    r"(?::(?P<tag>[^:@/]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_REGISTRY, _LAYOUT, _FLAT = "registry://", "oci:", "dir:"
_ARCHIVES = ("docker-archive:", "oci-archive:")
SCHEMES = (_REGISTRY, _LAYOUT, _FLAT, *_ARCHIVES)


def export_stored(
    project: Project,
    uri: str,
    credentials: CredentialsFor,
    *,
    cache_limit: int = DEFAULT_LIMIT,
    options: SqshOptions | None = None,
    folder: Path | None = None,
    force: bool = False,
    on_event: OnEvent = silent,
) -> Path:
    """Export the image at `registry://...`, `oci:...` or `docker-archive:...`; path of the .sqsh.

    Its name says what it holds: what the image is called, and its manifest's digest.
    """
    cache = layer_cache(project, cache_limit)
    with open_stored_image(uri, credentials, cache.folder) as image:
        path = (folder or project.sqsh) / f"{_file_name(image)}-{image.digest[7:19]}.sqsh"
        request = ExportRequest(
            path, image.digest.removeprefix("sha256:"), Packing(options or SqshOptions()), force
        )
        export_source(image, request, cache=cache, on_event=on_event)
    return path


def export_blobs(
    store: BlobStore,
    digest: str,
    request: ExportRequest,
    *,
    cache: LayerCache,
    on_event: OnEvent = silent,
) -> Sidecar:
    """Export the image whose manifest `digest` names in `store`; see `export_image`."""
    finder = ImageFinder(store)
    document = finder.document(digest)
    if isinstance(document, ImageIndex):
        raise SlipwayError(f"{digest} is an index, not an image", where=store.where)
    manifest = StoredManifest(digest, document)
    name = f"{store.where.partition('@')[0]}@{digest}"
    image = stored_image(store, manifest, finder.description(manifest), name)
    return export_source(image, request, cache=cache, on_event=on_event)


def push_stored(uri: str, path: Path, credentials: CredentialsFor, on_event: OnEvent) -> PushedFile:
    """Put the .sqsh of the image at `registry://...` beside that image; see `push_sqsh`."""
    if not uri.startswith(_REGISTRY):
        raise UsageError(
            f"{uri!r} is in no registry to push to",
            cure="Push the image, and export it with --from registry://HOST/REPOSITORY:TAG.",
        )
    host, repository, reference = _registry_reference(uri)
    with RegistryClient(host, credentials, on_event=on_event) as client:
        return push_sqsh(path, Repository(client, repository), reference, on_event)


def _registry_reference(uri: str) -> tuple[str, str, str]:
    """Host, repository, and tag or digest."""
    match = _REFERENCE.fullmatch(uri.removeprefix(_REGISTRY))
    if match is None or not (match["digest"] or match["tag"]):
        raise _usage(uri)
    return match["host"], match["repository"], match["digest"] or match["tag"]


def _file_name(image: SourceImage) -> str:
    """The last part of what the image is called, without its tag or digest, fit for a file."""
    name = (
        image.reference.removeprefix(_LAYOUT)
        .removeprefix(_FLAT)
        .partition("@")[0]
        .rpartition("/")[2]
    )
    name = name.partition(":")[0].removesuffix(".gz").removesuffix(".tar")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "image"


@contextmanager
def open_stored_image(uri: str, credentials: CredentialsFor, spool: Path) -> Iterator[SourceImage]:
    """The image of `registry://HOST/REPOSITORY@sha256:...` (or `:TAG`), `oci:FOLDER`, `dir:FOLDER`,
    `docker-archive:FILE` or `oci-archive:FILE`; all but the first may have a tag or digest behind.

    Layers can be read in the block; what has to be unpacked for that is kept on `spool`'s file
    system. Raises UsageError for another kind of URI, RegistryError and SlipwayError.
    """
    archive = next((scheme for scheme in _ARCHIVES if uri.startswith(scheme)), None)
    if uri.startswith(_REGISTRY):
        host, repository, reference = _registry_reference(uri)
        with RegistryClient(host, credentials) as registry:
            yield registry_image(registry, repository, reference)
    elif uri.startswith(_LAYOUT):
        path, wanted = _path_and_name(uri.removeprefix(_LAYOUT))
        yield layout_image(path, wanted)
    elif uri.startswith(_FLAT):
        path, wanted = _path_and_name(uri.removeprefix(_FLAT))
        yield flat_image(path, wanted)
    elif archive is not None:
        path, wanted = _path_and_name(uri.removeprefix(archive))
        if not path.is_file():
            raise UsageError(
                "this is not a file" if path.exists() else "there is no such file",
                where=str(path),
                cure="A folder is named as oci:FOLDER (an OCI layout) or dir:FOLDER (skopeo's)."
                if path.is_dir()
                else None,
            )
        with open_archive(path, spool) as blobs:
            yield archive_image(blobs, wanted)
    else:
        raise _usage(uri)


def _path_and_name(text: str) -> tuple[Path, str]:
    """`PATH`, `PATH:NAME` or `PATH@DIGEST`: the longest path that exists, and the rest."""
    ends = [len(text), *sorted((m.start() for m in re.finditer("[:@]", text)), reverse=True)]
    for end in ends:
        if text[:end] and Path(text[:end]).exists():
            return Path(text[:end]), text[end + 1 :]
    return Path(text), ""


def _usage(uri: str) -> UsageError:
    return UsageError(
        f"{uri!r} is not an image to read",
        cure="Name it as registry://HOST/REPOSITORY@sha256:DIGEST, registry://HOST/REPOSITORY:TAG,"
        " oci:FOLDER, dir:FOLDER, docker-archive:FILE or oci-archive:FILE.",
    )
