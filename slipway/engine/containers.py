"""Containers of ours: a command in a fresh one, and the removal of what a killed run left."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import requests
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from slipway.core import Owner, this_process
from slipway.engine.client import Engine
from slipway.engine.errors import EngineError
from slipway.engine.sdk_boundary import sdk_errors

OWNER_LABEL = "io.slipway.owner"
"""On every container that is ours: the Owner, as text, that will remove it."""
# Output byte for byte: the default driver (json-file) replaces what is not UTF-8.
_LOG = LogConfig(type="local", config={"max-size": "1g", "max-file": "1", "compress": "false"})


@dataclass(frozen=True)
class RunResult:
    """How a command in a container ended, and the last gigabyte of what it printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class ContainerOptions:
    """What a command in a container has around it.

    `entrypoint` None keeps the image's own, () runs the command bare. `mounts` binds host paths to
    container paths, read-only unless the host path is in `writable`.
    """

    entrypoint: Sequence[str] | None = None
    network: Literal["none", "host"] = "none"
    mounts: Mapping[Path, str] = field(default_factory=dict)
    writable: Collection[Path] = ()
    env: Mapping[str, str] = field(default_factory=dict)


BARE = ContainerOptions(entrypoint=())
"""The command alone, without the image's ENTRYPOINT."""


def run_once(
    engine: Engine,
    image: str,
    command: Sequence[str],
    options: ContainerOptions = ContainerOptions(),
    *,
    timeout_s: float,
) -> RunResult:
    """Run a command in a fresh container and remove it, also on Ctrl-C and on timeout.

    Raises EngineError when the command takes longer than `timeout_s`, or cannot be started.
    """
    entrypoint = options.entrypoint
    binds = [
        Mount(target, str(source), type="bind", read_only=source not in options.writable)
        for source, target in options.mounts.items()
    ]
    api = engine.client.api
    with sdk_errors(engine, f"running {' '.join(command)} in {image}"):
        host_config = api.create_host_config(
            network_mode=options.network, mounts=binds, init=False, log_config=_LOG
        )
        container = api.create_container(
            image,
            command=list(command),
            # The API takes [""] as "no entrypoint"; an empty list would keep the image's.
            entrypoint=None if entrypoint is None else list(entrypoint) or [""],
            environment=dict(options.env),
            labels={OWNER_LABEL: str(this_process())},
            host_config=host_config,
        )["Id"]
        try:
            api.start(container)
            try:
                status = api.wait(container, timeout=math.ceil(timeout_s))
            except (requests.ReadTimeout, requests.ConnectionError) as error:
                if not engine.answers():
                    raise
                raise EngineError(
                    f"`{' '.join(command)}` did not end within {timeout_s:g} s", where=image
                ) from error
            return RunResult(
                int(status["StatusCode"]),
                api.logs(container, stdout=True, stderr=False),
                api.logs(container, stdout=False, stderr=True),
            )
        finally:
            remove_container(engine, container)


def remove_stale_containers(engine: Engine) -> int:
    """Remove containers whose process on this host was killed before it could; returns how many.

    Containers of living processes, of other hosts, and those that are not ours are left alone.
    """
    api, removed = engine.client.api, 0
    with sdk_errors(engine, "removing containers of killed runs"):
        for container in api.containers(all=True, filters={"label": OWNER_LABEL}):
            owner = Owner.parse(str(container["Labels"][OWNER_LABEL]))
            if owner is not None and owner.is_gone:
                remove_container(engine, container["Id"])
                removed += 1
    return removed


def remove_container(engine: Engine, container: str) -> None:
    """Remove a container and its volumes, running or not; one that is gone, or going, is fine."""
    try:
        engine.client.api.remove_container(container, force=True, v=True)
    except NotFound:
        return  # somebody else was quicker
    except (APIError, requests.RequestException) as error:
        if engine.answers() and "already in progress" not in str(error):
            raise
