"""An image of the engine as a tar stream: a container is made, exported, and always removed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker.errors
import requests

from slipway.core import this_process
from slipway.engine import (
    OWNER_LABEL,
    Engine,
    EngineError,
    find_image_id,
    inspect_image,
    remove_container,
    sdk_errors,
)
from slipway.sqsh.source_image import ImageConfig, ImageFacts, SourceImage, timestamp_seconds
from slipway.squashfs import DirectorySource

_CHUNK_BYTES = 1 << 20


def find_engine_image(engine: Engine, reference: str) -> ImageFacts:
    """Inspect an image by name or id. Raises EngineError where the engine does not have it."""
    if find_image_id(engine, reference) is None:
        raise EngineError(f"the engine has no image {reference}", cure="Build it: `./inv build`.")
    image = inspect_image(engine, reference)
    return ImageFacts(
        reference=reference,
        id=image["Id"],
        digests=tuple(image.get("RepoDigests") or ()),
        size=image["Size"],
        created=timestamp_seconds(image.get("Created")),
        config=ImageConfig.from_inspect(image.get("Config") or {}),
    )


def _raise_for_status(response: requests.Response) -> None:
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)


@dataclass(frozen=True)
class ContainerExport:
    """A running export."""

    chunks: Iterator[bytes]
    touched_after: int  # seconds, on the engine's clock: files newer than this are the engine's


@contextlib.contextmanager
def container_export(engine: Engine, image: ImageFacts) -> Iterator[ContainerExport]:
    """The file system of `image` as the tar stream of `docker export`. Raises EngineError."""
    # Named by us, so that a Ctrl-C before the engine's answer leaves nothing we cannot find.
    name = f"slipway-export-{secrets.token_hex(6)}"
    with sdk_errors(engine, f"exporting {image.reference}"):
        api = engine.client.api
        try:
            api.create_container(
                image.id,
                command=["slipway-export"],  # never started; an image without CMD needs one
                name=name,
                labels={OWNER_LABEL: str(this_process())},
                network_disabled=True,
            )
            created = timestamp_seconds(api.inspect_container(name)["Created"])
            # Not api.export(): its response cannot be closed early, and an engine does not remove
            # a container whose export is still open.
            url = f"{api.base_url}/v{api.api_version}/containers/{name}/export"
            with contextlib.closing(api.get(url, stream=True, timeout=(60, None))) as response:
                _raise_for_status(response)
                yield ContainerExport(response.iter_content(_CHUNK_BYTES), created)
        finally:
            remove_container(engine, name)


def find_overlay_layers(engine: Engine, image: ImageFacts) -> SourceImage | None:
    """The image with its overlay2 directories; None where this process cannot read them.

    That is so for engines elsewhere, for other stores (containerd's snapshots are not named by
    the API) and for users who are not root.
    """
    if engine.containerd_store or not engine.url.startswith("unix:"):
        return None
    found = inspect_image(engine, image.id)
    driver = found.get("GraphDriver") or {}
    if driver.get("Name") != "overlay2":
        return None
    # The upper directory is the topmost layer; the lower ones are listed from the top down
    # (moby/moby:daemon/graphdriver/overlay2/overlay.go, GetMetadata).
    data = driver.get("Data") or {}
    listed = [data.get("UpperDir", ""), *(data.get("LowerDir") or "").split(":")]
    folders = [Path(folder) for folder in reversed(listed) if folder]
    digests = found["RootFS"].get("Layers") or []
    if len(folders) != len(digests) or not all(map(_readable, folders)):
        return None
    return SourceImage(
        image,
        tuple(map(DirectorySource, digests, folders)),
        f"dockerd://{image.reference}",
        engine_files=True,
    )


def _readable(folder: Path) -> bool:
    try:
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        return False
