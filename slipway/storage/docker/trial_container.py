"""One container, run to its end: the proof that layers, runtime and disk work together.

It needs no shell in the image and no network: a program of a few bytes is bound into a container
of an image that is there, or made an image of its own where there is none.
"""

from __future__ import annotations

import platform
from pathlib import Path

from slipway.core import write_atomic
from slipway.engine import (
    TRIAL_EXIT_CODE,
    TRIAL_PATH,
    ContainerOptions,
    Engine,
    EngineError,
    inspect_image,
    run_once,
    run_trial_image,
    sdk_errors,
    trial_program,
)
from slipway.storage.errors import StorageError

_TIMEOUT_S = 120.0
_DOCKER_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def run_trial_container(engine: Engine, folder: Path) -> None:
    """Run the trial container. Raises StorageError.

    `folder` is a place on this machine where the program can lie meanwhile.
    """
    machine = platform.machine()
    architecture = _DOCKER_NAMES.get(machine, machine)
    program = trial_program(architecture)
    if program is None:
        raise StorageError(f"no trial container is known for {machine} processors")
    image = _image(engine, architecture)
    try:
        if image is None:
            _expect(run_trial_image(engine, program), "an image of its own")
        else:
            _run_in(engine, image, program, folder)
    except EngineError as error:
        raise StorageError(f"no container runs: {error.what}", where=error.where) from error


def _image(engine: Engine, architecture: str) -> str | None:
    """The image with the most layers that this machine can run."""
    best: tuple[int, str] | None = None
    with sdk_errors(engine, "looking for an image to try"):
        for listed in engine.client.api.images():
            inspection = inspect_image(engine, listed["Id"])
            layers = len((inspection.get("RootFS") or {}).get("Layers") or ())
            usable = (inspection.get("Os"), inspection.get("Architecture")) == (
                "linux",
                architecture,
            )
            if usable and layers and (best is None or layers > best[0]):
                best = (layers, str(listed["Id"]))
    return best[1] if best else None


def _run_in(engine: Engine, image: str, binary: bytes, folder: Path) -> None:
    path = folder / "trial"
    write_atomic(path, binary, mode=0o755)
    try:
        done = run_once(
            engine,
            image,
            [TRIAL_PATH],
            ContainerOptions(entrypoint=(), mounts={path: TRIAL_PATH}),
            timeout_s=_TIMEOUT_S,
        )
    finally:
        path.unlink()
    _expect(done.exit_code, image)


def _expect(exit_code: int, image: str) -> None:
    if exit_code != TRIAL_EXIT_CODE:
        raise StorageError(
            f"the trial container ended with {exit_code} instead of {TRIAL_EXIT_CODE}", where=image
        )
