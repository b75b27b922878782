"""Looking images up, and running one command in a container that never stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.errors import ImageNotFound

from slipway.engine.client import Engine
from slipway.engine.errors import EngineError
from slipway.engine.sdk_boundary import sdk_errors


def find_image_id(engine: Engine, reference: str) -> str | None:
    """The id behind a name, digest or id; None where the engine does not have it."""
    try:
        return str(inspect_image(engine, reference)["Id"])
    except EngineError as error:
        if isinstance(error.__cause__, ImageNotFound):
            return None
        raise


def image_history(engine: Engine, reference: str) -> list[Mapping[str, Any]]:
    """The steps that made an image, oldest first (`docker history`). Raises EngineError."""
    with sdk_errors(engine, f"reading the history of {reference}"):
        history: Any = engine.client.api
        return list(reversed(history.history(reference)))


def tag_image(engine: Engine, image: str, reference: str) -> None:
    """Give an image one more name, which it takes from another. Raises EngineError."""
    repository, _, tag = reference.rpartition(":")
    with sdk_errors(engine, f"tagging {reference}"):
        engine.client.api.tag(image, repository, tag, force=True)


def inspect_image(engine: Engine, reference: str) -> Mapping[str, Any]:
    """The engine's description of an image (`docker inspect`). Raises EngineError if absent."""
    with sdk_errors(engine, f"looking up {reference}"):
        return engine.client.images.get(reference).attrs
