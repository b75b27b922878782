"""The docker SDK's exceptions as ours."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import urllib3
from docker.errors import APIError, DockerException

from slipway.core import SlipwayError, disk_space, error_text, human_bytes, printable, redact
from slipway.engine.client import Engine
from slipway.engine.errors import DiskFullError, EngineDiedError, EngineError, is_full

GONE = (DockerException, requests.RequestException)
"""What the SDK raises when the connection breaks; APIError, an answer, must be caught before."""
_CONNECTION = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    http.client.HTTPException,
    ConnectionError,
)


def engine_died(engine: Engine, doing: str) -> EngineDiedError:
    """The error to raise when the daemon went away while `doing`."""
    return EngineDiedError(
        f"the Docker daemon went away while {doing}; nothing else is to blame",
        where=engine.url,
        cure="Run the command again: the embedded engine is started anew."
        if engine.embedded
        else "Start the daemon again (its log tells why it stopped), then repeat the command.",
    )


def sdk_answer(error: APIError) -> str:
    """What the daemon said when it refused."""
    return redact(printable(str(error.explanation or error).strip()))


@contextmanager
def sdk_errors(engine: Engine, doing: str) -> Iterator[None]:
    """Raise EngineError, DiskFullError or EngineDiedError for whatever the SDK raises inside.

    The SDK lets out what its parts raise: requests', urllib3's and http.client's errors, and bare
    ones where an answer is not what it expects.
    """
    try:
        yield
    except SlipwayError:
        raise
    except APIError as error:
        if is_full(sdk_answer(error)):
            raise disk_full(engine, doing) from error
        raise EngineError(f"{doing} failed: {sdk_answer(error)}", where=engine.url) from error
    except Exception as error:
        if isinstance(error, _CONNECTION) or not engine.answers():
            raise engine_died(engine, doing) from error
        raise EngineError(
            f"{doing} failed: {error_text(error)}",
            where=engine.url,
            cure="The daemon answers, but not as Docker's API has it: `docker version` and its "
            "log tell more.",
        ) from error


def disk_full(engine: Engine, doing: str) -> DiskFullError:
    """The error to raise, with the free space of the engine's disk where it is this machine's."""
    root = Path(engine.data_root)
    free = ""
    if engine.url.startswith("unix:") and root.exists():
        free = f", where {human_bytes(disk_space(root).free)} are free now"
    return DiskFullError(
        f"no space left while {doing}; the engine keeps its data in {root}{free}",
        where=engine.url,
        cure="Make room on that disk (unused images and build cache are the first to go), "
        + (
            "or set SLIPWAY_STATE to a folder on a larger one."
            if engine.embedded
            else "or move the daemon's data-root to a larger one."
        ),
    )
