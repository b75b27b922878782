"""What the engine's tests share: a build with most of its arguments left out, and waiting."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from slipway.core import (
    CredentialsFor,
    Event,
    OnEvent,
    anonymous,
    command_line,
    find_process,
    silent,
)
from slipway.engine import BuildAttempt, BuildRequest, ContextFile, Engine, build_image

TASK = "build of a test"


def request(
    dockerfile: str,
    *,
    context: tuple[ContextFile, ...] = (),
    tags: tuple[str, ...] = (),
    build_args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    network: Literal["none", "host", "default"] = "none",
) -> BuildRequest:
    return BuildRequest(
        dockerfile, context, tags, build_args or {}, labels or {}, secrets or {}, network
    )


def run_build(
    engine: Engine,
    wanted: BuildRequest,
    log: Path,
    *,
    credentials: CredentialsFor = anonymous,
    on_event: OnEvent = silent,
    cancel: threading.Event | None = None,
) -> str:
    return build_image(
        engine,
        wanted,
        BuildAttempt(
            task=TASK,
            credentials=credentials,
            on_event=on_event,
            log=log,
            cancel=cancel,
        ),
    )


def sleeping(seconds: str) -> list[int]:
    """Pids of `sleep <seconds>`: a RUN step that a test can recognise from outside."""
    return list(find_process(lambda pid: command_line(pid)[-2:] == ["sleep", seconds]))


def when_says(text: str, act: OnEvent) -> OnEvent:
    """Call `act` when a step prints `text`."""

    def on_event(event: Event) -> None:
        if event.kind == "log" and event.text == text:
            act(event)

    return on_event
