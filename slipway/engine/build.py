"""Building one image with BuildKit, over a session of our own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any, Literal
from urllib.parse import urlencode

from slipway.engine import ballast, dockerfile, trace
from slipway.engine.client import Engine
from slipway.engine.context import ContextFile, check_paths, context_tar
from slipway.engine.diagnosis import diagnose
from slipway.engine.disk import disk_full, is_full
from slipway.engine.errors import BuildCancelledError, BuildFailedError, EngineError
from slipway.engine.processes import wait_until
from slipway.engine.progress import Progress
from slipway.engine.sdk import engine_died
from slipway.engine.session import Session
from slipway.engine.transport import dial, json_lines, post
from slipway.errors import SlipwayError
from slipway.registry.model import CredentialsFor
from slipway.report.events import OnEvent

__all__ = ["BuildRequest", "ContextFile", "build"]

_DOCKERFILE = "Dockerfile"

_ASKS_REGISTRY = "[internal] load metadata for"  # BuildKit's step that looks a base up

# What a step's error says when it was the daemon that went, not the step: SIGTERM to dockerd ends
# a RUN with 137, and its own calls with "canceled" or "closing".
_DAEMON_LEAVING = ("137", "context canceled", "closing", "EOF", "connection refused")
_LEAVING_S = 5.0


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


def build(
    engine: Engine,
    request: BuildRequest,
    *,
    task: str,
    credentials: CredentialsFor,
    on_event: OnEvent,
    log: Path,
    cancel: threading.Event | None = None,
) -> str:
    """Build the image and return its id ("sha256:...").

    `task` names the build in events and errors; `credentials` is asked when a base is pulled; all
    output goes to `log`. Setting `cancel`, or Ctrl-C, closes the connection, at which the daemon
    stops the build and tags nothing. Raises BuildFailedError, BuildCancelledError,
    DiskFullError, EngineDiedError, or EngineError for a request that no engine takes.
    """
    dockerfile.check(request.dockerfile)
    files = (ContextFile(_DOCKERFILE, request.dockerfile.encode()), *request.context)
    check_paths(files)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        closing(Session(engine, secrets=request.secrets, credentials=credentials)) as session,
        closing(dial(engine)) as sock,
        _cut_off(sock, cancel),
    ):
        progress = Progress(task, on_event, file)
        outcome = _Outcome()
        try:
            path = f"/v{engine.api_version}/build?{_query(engine, request, session.id)}"
            headers = {"Content-Type": "application/x-tar"}
            with closing(post(sock, path, headers, context_tar(files))) as response:
                if response.status == 200:
                    for line in json_lines(response):
                        outcome.take(line, progress)
                else:
                    outcome.error = _refusal(response.read())
        except (OSError, HTTPException) as error:
            outcome.broken = error
        progress.finish()
        if outcome.image_id is not None and not outcome.error:
            return outcome.image_id
        if cancel is not None and cancel.is_set():
            raise BuildCancelledError(f"{task} was cancelled", where=str(log))
        raise _failure(engine, task, log, outcome, progress, session.failure)


@dataclass
class _Outcome:
    image_id: str | None = None
    error: str = ""  # in-band, or the HTTP refusal
    broken: Exception | None = None  # the connection ended before the answer did

    def take(self, line: Mapping[str, Any], progress: Progress) -> None:
        if line.get("id") == "moby.buildkit.trace":
            progress.take(trace.decode(base64.b64decode(line["aux"])))
        elif line.get("id") == "moby.image.id":
            self.image_id = str(line["aux"]["ID"])
        elif "error" in line:
            self.error = str(line.get("errorDetail", {}).get("message") or line["error"])


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
    if request.target is not None:
        params.append(("target", request.target))
    return urlencode(params)


def _refusal(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    with suppress(json.JSONDecodeError):
        return str(json.loads(text)["message"])
    return text


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


def _failure(
    engine: Engine,
    task: str,
    log: Path,
    outcome: _Outcome,
    progress: Progress,
    session_failure: Exception | None,
) -> SlipwayError:
    """The error that says whose fault it was: credentials, the disk, the daemon, the Dockerfile."""
    if isinstance(session_failure, SlipwayError):
        return session_failure
    if session_failure is not None:
        failure = EngineError(f"{task}: the registry's credentials: {session_failure}")
        failure.__cause__ = session_failure
        return failure
    step = progress.failed
    tail = tuple(step.tail) if step else ()
    if is_full("\n".join((outcome.error, step.error if step else "", *tail))):
        if engine.embedded:
            ballast.release(engine.client, Path(engine.data_root))
        return disk_full(engine, f"building {task}")
    if outcome.broken is not None or _died(engine, outcome.error):
        return engine_died(engine, f"building {task}")
    reason = outcome.error or "the engine ended the build without an image"
    return BuildFailedError(
        task,
        reason,
        step=step.name if step else None,
        last_lines=tail,
        log=log,
        advice=diagnose(reason).cure if step and step.name.startswith(_ASKS_REGISTRY) else None,
    )


def _died(engine: Engine, error: str) -> bool:
    if not engine.answers():
        return True
    if not any(word in error for word in _DAEMON_LEAVING):
        return False
    # A daemon that is shutting down answers pings for a while after it has ended the step.
    return wait_until(lambda: not engine.answers(), _LEAVING_S, every=0.25)
