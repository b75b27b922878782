"""An image of the engine as a tar stream: a container is made, exported, and always removed."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import docker.errors
import requests

from slipway.engine.client import Engine
from slipway.engine.errors import EngineError
from slipway.engine.images import OWNER_LABEL, image_id, inspect
from slipway.engine.sdk import sdk_errors
from slipway.sqsh.enroot import ImageConfig
from slipway.sqsh.owner import this_process

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceImage:
    """What the engine knows of an image."""

    reference: str
    id: str
    digests: tuple[str, ...]
    size: int  # bytes, unpacked
    created: int  # seconds since the epoch; 0 where the image does not say
    config: ImageConfig


def seconds(timestamp: str | None) -> int:
    """An RFC 3339 time -> whole seconds since the epoch, never below 0; 0 where there is none.

    Raises EngineError for any other text. Engines write more decimals than Python 3.10 reads.
    """
    if not timestamp:
        return 0
    parts = re.fullmatch(r"(.{19})(?:\.\d+)?(Z|[+-]\d\d:\d\d)", timestamp)
    try:
        if parts is None:
            raise ValueError(timestamp)
        zone = parts[2].replace("Z", "+00:00")
        return max(0, int(datetime.fromisoformat(f"{timestamp[:19]}{zone}").timestamp()))
    except ValueError as error:
        raise EngineError(f"the engine gave {timestamp!r} as a time") from error


def look_up(engine: Engine, reference: str) -> SourceImage:
    """Inspect an image by name or id. Raises EngineError where the engine does not have it."""
    if image_id(engine, reference) is None:
        raise EngineError(f"the engine has no image {reference}", cure="Build it: `./inv build`.")
    image = inspect(engine, reference)
    return SourceImage(
        reference=reference,
        id=image["Id"],
        digests=tuple(image.get("RepoDigests") or ()),
        size=image["Size"],
        created=seconds(image.get("Created")),
        config=ImageConfig.from_inspect(image.get("Config") or {}),
    )


def _raise_for_status(response: requests.Response) -> None:
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)


def _remove(engine: Engine, container: str) -> None:
    try:
        engine.client.api.remove_container(container, v=True, force=True)
    except docker.errors.APIError as error:
        # Gone, or another run is removing it at this moment.
        if error.status_code not in (404, 409):
            raise


@dataclass(frozen=True)
class Exported:
    """A running export."""

    chunks: Iterator[bytes]
    touched_after: int  # seconds, on the engine's clock: files newer than this are the engine's


@contextlib.contextmanager
def exported(engine: Engine, image: SourceImage) -> Iterator[Exported]:
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
                labels={OWNER_LABEL: this_process().as_label()},
                network_disabled=True,
            )
            created = seconds(api.inspect_container(name)["Created"])
            # Not api.export(): its response cannot be closed early, and an engine does not remove
            # a container whose export is still open.
            url = f"{api.base_url}/v{api.api_version}/containers/{name}/export"
            with contextlib.closing(api.get(url, stream=True, timeout=(60, None))) as response:
                _raise_for_status(response)
                yield Exported(response.iter_content(_CHUNK_BYTES), created)
        finally:
            _remove(engine, name)
