"""The .sqsh of an image beside it in a target."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import registry, sqsh
from slipway.core import CredentialsFor, OnEvent, human_bytes
from slipway.pipeline.image_run import ImageRun, StageResult

if TYPE_CHECKING:
    from slipway.registry import Target


def push_sqsh_stage(
    run: ImageRun, target: Target, credentials: CredentialsFor, on_event: OnEvent
) -> StageResult:
    """Have the image's .sqsh beside the image in the target, for nodes to fetch it from there."""
    pushed, exported = run.record.pushed[target.name], run.record.exported
    assert exported is not None, "the stages before have made both"
    path = pushed.uri.removeprefix(f"{target.host}/").rpartition(":")[0]
    started = time.monotonic()
    with registry.RegistryClient(target.host, credentials, on_event=on_event) as client:
        result = sqsh.push_sqsh(
            Path(exported.path), registry.Repository(client, path), pushed.digest, on_event
        )
    sent = "" if result.already else f", {human_bytes(result.sent)} sent"
    return StageResult(
        "push sqsh",
        not result.already,
        time.monotonic() - started,
        f"registry://{pushed.uri}{sent}",
    )
