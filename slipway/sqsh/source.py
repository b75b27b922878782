"""An image of the engine as a tar stream: a container is made, exported, and always removed."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker.errors
import requests

from slipway.engine.client import Engine
from slipway.engine.errors import EngineDiedError, EngineError
from slipway.sqsh.enroot import ImageConfig
from slipway.sqsh.owner import Owner, this_process

OWNER_LABEL = "io.slipway.export-owner"
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
    """An RFC 3339 time in UTC, as engines write it -> whole seconds, never below 0."""
    if not timestamp:
        return 0
    return max(0, int(datetime.fromisoformat(timestamp[:19] + "+00:00").timestamp()))


@contextlib.contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what the docker SDK and its connection raise into SlipwayError."""
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineError(f"the engine refused to {doing}: {error.explanation}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise EngineDiedError(
            f"the engine went away while it was asked to {doing}: {error}",
            cure="Look at `./inv doctor`, then run this again; nothing half-made was kept.",
        ) from error


def look_up(engine: Engine, reference: str) -> SourceImage:
    """Inspect an image by name or id. Raises EngineError where the engine does not have it."""
    with engine_errors(f"inspect {reference}"):
        try:
            image: dict[str, Any] = engine.client.images.get(reference).attrs
        except docker.errors.ImageNotFound as error:
            raise EngineError(
                f"the engine has no image {reference}", cure="Build it first: `./inv build`."
            ) from error
    return SourceImage(
        reference=reference,
        id=image["Id"],
        digests=tuple(image.get("RepoDigests") or ()),
        size=image["Size"],
        created=seconds(image.get("Created")),
        config=ImageConfig.from_inspect(image.get("Config") or {}),
    )


def remove_leftovers(engine: Engine) -> list[str]:
    """Remove containers that killed exports of this host left; names of those removed."""
    removed = []
    with engine_errors("list containers"):
        api = engine.client.api
        for container in api.containers(all=True, filters={"label": OWNER_LABEL}):
            owner = Owner.parse(container["Labels"][OWNER_LABEL])
            if owner is not None and owner.is_gone:
                _remove(engine, container["Id"])
                removed.append(container["Names"][0].lstrip("/"))
    return removed


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
    """The file system of `image` as the tar stream of `docker export`. Raises SlipwayError."""
    # Named by us, so that a Ctrl-C before the engine's answer leaves nothing we cannot find.
    name = f"slipway-export-{secrets.token_hex(6)}"
    with engine_errors(f"export {image.reference}"):
        api = engine.client.api
        try:
            api.create_container(
                image.id,
                command=["slipway-export"],  # never started; an image without CMD needs one
                name=name,
                labels={OWNER_LABEL: str(this_process())},
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
