"""What `inv sqsh` does without an engine: export stored images, and check files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.core import CredentialsFor, OnEvent, Project, UsageError, silent
from slipway.registry import RegistryClient
from slipway.sqsh.export import export_source
from slipway.sqsh.sources import StoredImage, layout_image, registry_image
from slipway.squashfs import DEFAULT_LIMIT, SqshOptions, layer_cache

_REFERENCE = re.compile(
    r"(?P<host>[^/]+)/(?P<repository>[^@]+?)"
    r"(?::(?P<tag>[^:@/]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_REGISTRY, _LAYOUT = SCHEMES = ("registry://", "oci:")


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
    """Export the image at `registry://...` or `oci:...`; the path of the .sqsh.

    Its name says what it holds: the repository's last part and the manifest's digest.
    """
    with open_stored_image(uri, credentials) as image:
        words = re.split(r"[@:]", image.origin.image.reference.rpartition("/")[2])
        name = next(word for word in words if word not in ("oci", ""))
        path = (folder or project.sqsh) / f"{name}-{image.digest[7:19]}.sqsh"
        export_source(
            image.origin,
            path,
            cache=layer_cache(project, cache_limit),
            options=options,
            build_id=image.digest.removeprefix("sha256:"),
            force=force,
            on_event=on_event,
        )
    return path


@contextmanager
def open_stored_image(uri: str, credentials: CredentialsFor) -> Iterator[StoredImage]:
    """The image of `registry://HOST/REPOSITORY@sha256:...` (or `:TAG`) or `oci:DIR`.

    Layers can be read in the block. Raises UsageError for another kind of URI, RegistryError and
    SlipwayError.
    """
    if uri.startswith(_REGISTRY):
        found = _REFERENCE.fullmatch(uri.removeprefix(_REGISTRY))
        if found is None or not (found["digest"] or found["tag"]):
            raise _usage(uri)
        with RegistryClient(found["host"], credentials) as registry:
            yield registry_image(registry, found["repository"], found["digest"] or found["tag"])
    elif uri.startswith(_LAYOUT):
        yield layout_image(Path(uri.removeprefix(_LAYOUT)))
    else:
        raise _usage(uri)


def _usage(uri: str) -> UsageError:
    return UsageError(
        f"{uri!r} is not an image to read",
        cure="Name it as registry://HOST/REPOSITORY@sha256:DIGEST, registry://HOST/REPOSITORY:TAG"
        " or oci:FOLDER.",
    )
