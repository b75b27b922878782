"""How a build ended, and whose fault it was where it failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slipway.core import SlipwayError, wait_until
from slipway.engine.buildkit.progress import BuildStep
from slipway.engine.client import Engine
from slipway.engine.diagnosis import diagnose
from slipway.engine.embedded import release_space
from slipway.engine.errors import BuildFailedError, EngineError, is_full
from slipway.engine.sdk_boundary import disk_full, engine_died

_ASKS_REGISTRY = "[internal] load metadata for"  # BuildKit's step that looks a base up

# What a step's error says when it was the daemon that went, not the step: SIGTERM to dockerd ends
# a RUN with 137, and its own calls with "canceled" or "closing".
_DAEMON_LEAVING = ("137", "context canceled", "closing", "EOF", "connection refused")
_LEAVING_S = 5.0


@dataclass
class BuildResult:
    """What the daemon's answer to a build came to."""

    image_id: str | None = None
    error: str = ""  # in-band, or the HTTP refusal
    broken: bool = False  # the connection ended before the answer did
    credentials_failure: Exception | None = None  # what our own side of the session raised


def build_result(
    engine: Engine, task: str, log: Path, outcome: BuildResult, step: BuildStep | None
) -> SlipwayError:
    """The error that says whose fault it was: credentials, the disk, the daemon, the Dockerfile."""
    asking = outcome.credentials_failure
    if isinstance(asking, SlipwayError):
        return asking
    if asking is not None:
        failure = EngineError(f"{task}: the registry's credentials: {asking}")
        failure.__cause__ = asking
        return failure
    tail = tuple(step.tail) if step else ()
    if is_full("\n".join((outcome.error, step.error if step else "", *tail))):
        if engine.embedded:
            release_space(engine.client, Path(engine.data_root))
        return disk_full(engine, f"building {task}")
    if outcome.broken or _died(engine, outcome.error):
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
