"""Asking a daemon after a start whether it is where it should be, with all that it should have.

The proof that layers, runtime and disk work together is one container, run to its end. It needs no
shell in the image and no network: a program of a few bytes is bound into a container of an image
that is there, or made an image of its own where there is none.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from slipway.core import Project, write_atomic
from slipway.engine import (
    TRIAL_EXIT_CODE,
    TRIAL_PATH,
    ContainerOptions,
    Engine,
    EngineError,
    connect,
    inspect_image,
    run_once,
    run_trial_image,
    sdk_errors,
    trial_program,
)
from slipway.storage.docker import (
    IN_FILES,
    DockerInventory,
    current_root,
    lost_objects,
    take_inventory,
)
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.changes import DataRoot
from slipway.storage.move.journal import MoveJournal, journal_folder

_TIMEOUT_S = 120.0

_NO_PROJECT = Project(Path("/nonexistent"), Path("/nonexistent"))
"""A URL alone decides which daemon is meant."""


def stop_containers(journal: MoveJournal) -> None:
    """Stop what ran when the move was planned; those that are gone are stopped enough."""
    if journal.before is None or not journal.before.running:
        return
    with closing(connect(_NO_PROJECT, journal.url)) as connected:
        for container in take_inventory(connected).running:
            with sdk_errors(connected, "stopping a container"):
                connected.client.api.stop(container)  # with the container's own patience


def _start_containers(connected: Engine, before: DockerInventory) -> None:
    """Start again what ran before; `--rm` containers are gone for good."""
    running = set(take_inventory(connected).running)
    for container in before.running:
        if container not in running and container not in before.transient:
            with sdk_errors(connected, f"starting {before.containers[container]}"):
                connected.client.api.start(container)


def check_daemon(machine: Machine, journal: MoveJournal, *, moved: bool) -> None:
    """Once moved, the daemon uses the new roots, has what went along, and runs a container.

    Else it uses the old roots again, and has everything of before. Raises SlipwayError.
    """
    with closing(connect(_NO_PROJECT, journal.url)) as connected:
        for root in journal.roots:
            _check_root(journal, root, connected, moved=moved)
        before, whole = journal.before, journal.carries or not moved
        if before is not None:
            now = take_inventory(connected, journal.folders_in_use(moved=moved))
            if now.driver != before.driver and before.driver in IN_FILES:
                raise StorageError(
                    f"the daemon uses the storage driver {now.driver} now, not {before.driver}"
                )
            if whole and (lost := lost_objects(before, now)):
                raise StorageError(f"these are not there any more: {', '.join(lost)}")
        if moved:
            _run_trial(connected, journal_folder(machine, journal.url))
        if before is not None and whole:
            _start_containers(connected, before)


def _check_root(journal: MoveJournal, root: DataRoot, connected: Engine, *, moved: bool) -> None:
    wanted = root.called(root.new if moved else root.old)
    if root.name == "containerd":
        assert journal.containerd is not None
        used = current_root(journal.containerd)
    else:
        used = Path(connected.data_root)
    if used.resolve() != wanted.resolve():
        raise StorageError(f"the daemon uses {used}, not {wanted}")


def _run_trial(engine: Engine, folder: Path) -> None:
    """`folder` is a place on this machine where the program can lie meanwhile."""
    program = trial_program(engine.architecture)
    if program is None:
        raise StorageError(f"no trial container is known for {engine.architecture} processors")
    image = _image(engine)
    try:
        if image is None:
            _expect(run_trial_image(engine, program), "an image of its own")
        else:
            _run_in(engine, image, program, folder)
    except EngineError as error:
        raise StorageError(f"no container runs: {error.what}", where=error.where) from error


def _image(engine: Engine) -> str | None:
    """The image with the most layers that this machine can run."""
    most, best = 0, None
    with sdk_errors(engine, "looking for an image to try"):
        for listed in engine.client.api.images():
            inspection = inspect_image(engine, listed["Id"])
            platform = (inspection.get("Os"), inspection.get("Architecture"))
            layers = len((inspection.get("RootFS") or {}).get("Layers") or ())
            if platform == ("linux", engine.architecture) and layers > most:
                most, best = layers, str(listed["Id"])
    return best


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
