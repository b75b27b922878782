"""Building one image with BuildKit, over a session of our own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode

from slipway.core import CredentialsFor, OnEvent, redact
from slipway.engine.buildkit import build_context, trace
from slipway.engine.buildkit.build_context import ContextFile, check_context_paths, context_tar
from slipway.engine.buildkit.build_result import BuildResult, build_result
from slipway.engine.buildkit.connection import (
    BrokenConnectionError,
    dial_engine,
    json_lines,
    post_hijacked,
    refusal_text,
)
from slipway.engine.buildkit.progress import BuildProgress
from slipway.engine.buildkit.session import Session
from slipway.engine.client import Engine
from slipway.engine.errors import BuildCancelledError, DiskFullError, EngineError, is_full

__all__ = ["BuildRequest", "ContextFile", "build_image"]

_DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class BuildRequest:
    """What one image is made of.

    `context` has every file that the Dockerfile's text copies; `secrets` are for
    `RUN --mount=type=secret,id=NAME` and end up in no layer. `network` is what RUN steps have;
    the embedded engine has no bridge, so that "default" is the host's network there.
    """

    dockerfile: str
    context: tuple[ContextFile, ...]
    tags: tuple[str, ...]
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, bytes] = field(repr=False)
    network: Literal["none", "host", "default"] = "none"
    pull: bool = False
    target: str | None = None
    architecture: str = ""  # of the base; the engine's own where it is not said


@dataclass(frozen=True)
class BuildAttempt:
    """One attempt at a build.

    `task` names it in events and errors; `credentials` is asked when a base is pulled; all output
    goes to `log`. Setting `cancel` ends it.
    """

    task: str
    credentials: CredentialsFor
    on_event: OnEvent
    log: Path
    cancel: threading.Event | None = None


def build_image(engine: Engine, request: BuildRequest, attempt: BuildAttempt) -> str:
    """Build the image and return its id ("sha256:...").

    Cancelling, or Ctrl-C, closes the connection, at which the daemon stops the build and tags
    nothing. Raises BuildFailedError, BuildCancelledError, DiskFullError, EngineDiedError, or
    EngineError for a request that no engine takes.
    """
    task, log, cancel = attempt.task, attempt.log, attempt.cancel
    build_context.check_dockerfile(request.dockerfile)
    files = (ContextFile(_DOCKERFILE, request.dockerfile.encode()), *request.context)
    check_context_paths(files)
    with (
        BuildLog(log) as file,
        closing(
            Session(engine, secrets=request.secrets, credentials=attempt.credentials)
        ) as session,
        closing(dial_engine(engine)) as sock,
        _cut_off(sock, cancel),
    ):
        progress = BuildProgress(task, attempt.on_event, file)
        path = f"/v{engine.api_version}/build?{_query(engine, request, session.id)}"
        outcome = _exchange(sock, path, context_tar(files), progress)
        outcome.credentials_failure = session.failure
    if outcome.image_id is not None and not outcome.error:
        return outcome.image_id
    if cancel is not None and cancel.is_set():
        raise BuildCancelledError(f"{task} was cancelled", where=str(log))
    raise build_result(engine, task, log, outcome, progress.failed)


def _exchange(
    sock: socket, path: str, context: Iterator[bytes], progress: BuildProgress
) -> BuildResult:
    """Send the context and follow the answer to its end, or to where the connection breaks."""
    outcome = BuildResult()
    try:
        with closing(
            post_hijacked(sock, path, {"Content-Type": "application/x-tar"}, context)
        ) as response:
            if response.status == 200:
                for line in json_lines(response):
                    _take(line, outcome, progress)
            else:
                outcome.error = refusal_text(response)
    except BrokenConnectionError:
        outcome.broken = True
    progress.finish()
    return outcome


def _take(line: Mapping[str, Any], outcome: BuildResult, progress: BuildProgress) -> None:
    if line.get("id") == "moby.buildkit.trace":
        progress.take(trace.decode_trace(base64.b64decode(line["aux"])))
    elif line.get("id") == "moby.image.id":
        outcome.image_id = str(line["aux"]["ID"])
    elif "error" in line:
        outcome.error = str(line.get("errorDetail", {}).get("message") or line["error"])


def _query(engine: Engine, request: BuildRequest, session: str) -> str:
    """The parameters of `POST /build`: moby/moby:api/swagger.yaml, operation ImageBuild."""
    bridgeless = engine.embedded and request.network == "default"
    params = [
        ("version", "2"),  # BuildKit
        ("session", session),
        ("dockerfile", _DOCKERFILE),
        ("networkmode", "host" if bridgeless else request.network),
        ("buildargs", json.dumps(dict(request.build_args), sort_keys=True)),
        ("labels", json.dumps(dict(request.labels), sort_keys=True)),
        *(("t", tag) for tag in request.tags),
    ]
    if request.pull:
        params.append(("pull", "1"))
    if request.architecture:
        params.append(("platform", f"linux/{request.architecture}"))
    if request.target is not None:
        params.append(("target", request.target))
    return urlencode(params)


@contextmanager
def _cut_off(sock: socket, cancel: threading.Event | None) -> Iterator[None]:
    """While inside, shut `sock` down when `cancel` is set, so that a blocked read returns."""
    if cancel is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if cancel.wait(0.2):
                with suppress(OSError):  # already closed
                    sock.shutdown(SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="build-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class BuildLog:
    """The file at `path`, written anew. Every method raises EngineError, or DiskFullError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")

    def write(self, text: str) -> None:
        """Add text; it is on disk after `flush`."""
        with self._errors():
            self._file.write(redact(text))

    def flush(self) -> None:
        """Hand everything to the operating system, so that `tail -f` shows it."""
        with self._errors():
            self._file.flush()

    def __enter__(self) -> BuildLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._errors():
            self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._path)
            if is_full(str(error)):
                raise DiskFullError(
                    "no space left for the build's log",
                    where=where,
                    cure="Make room on that disk, or set SLIPWAY_STATE to a larger one.",
                ) from error
            raise EngineError(
                f"the build's log cannot be written: {error.strerror}", where=where
            ) from error
