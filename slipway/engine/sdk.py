"""The docker SDK's exceptions as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from docker.errors import APIError, DockerException

from slipway.engine.client import Engine
from slipway.engine.disk import disk_full, is_full
from slipway.engine.errors import EngineDiedError, EngineError

GONE = (DockerException, requests.RequestException)
"""What the SDK raises when the connection breaks; APIError, an answer, must be caught before."""


def engine_died(engine: Engine, doing: str) -> EngineDiedError:
    """The error to raise when the daemon went away while `doing`."""
    return EngineDiedError(
        f"the Docker daemon went away while {doing}; nothing else is to blame",
        where=engine.url,
        cure="Run the command again: the embedded engine is started anew."
        if engine.embedded
        else "Start the daemon again (its log tells why it stopped), then repeat the command.",
    )


def answer(error: APIError) -> str:
    """What the daemon said when it refused."""
    return str(error.explanation or error).strip()


@contextmanager
def sdk_errors(engine: Engine, doing: str) -> Iterator[None]:
    """Raise EngineError, DiskFullError or EngineDiedError for what the SDK raises inside."""
    try:
        yield
    except APIError as error:
        if is_full(answer(error)):
            raise disk_full(engine, doing) from error
        raise EngineError(f"{doing} failed: {answer(error)}", where=engine.url) from error
    except GONE as error:
        raise engine_died(engine, doing) from error
