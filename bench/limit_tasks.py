"""What bench/limits.py runs: tasks that have something to do, and what must be there afterwards.

The image is tiny: one layer of noise in a registry of its own, files and the launcher on top of it,
made without an engine. `storage.move` moves an embedded engine's data to a disk of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import py_compile
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import Project
from slipway.engine import connect, import_rootfs, start_daemon, stop_daemon
from slipway.registry import (
    RegistryClient,
    credentials_for,
    start_local_registry,
    stop_local_registry,
)
from slipway.sqsh import verify_sqsh_file
from tests.support.clones import Clone
from tests.support.fanout_samples import noise, put_bases, write_matrix
from tests.support.oci_bases import base_tar, write_base
from tests.support.registry.open_registry import open_registry
from tests.support.storage.box import disk
from tests.support.tiny import rootfs_tar

MIB = 1 << 20
MOVED = "limits.test/moved:1"


@dataclass
class Place:
    """A checkout whose matrix is one tiny image, and a state folder that is made anew."""

    clone: Clone
    image: str
    scratch: Path
    state: Path
    words: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Project:
        return Project(self.clone.root, self.state)

    @property
    def out(self) -> Path:
        return self.scratch / "out"

    def make_state(self) -> None:
        """As on a new machine, with the local registry running."""
        self.out.mkdir()
        start_local_registry(self.project)

    def drop_state(self) -> None:
        """End its daemons, and remove what there is."""
        stop_local_registry(self.project)
        shutil.rmtree(self.out, ignore_errors=True)
        for path in self.state.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def tiny_place(scratch: Path) -> Iterator[Place]:
    """A checkout of one tiny image, whose base is in a registry that runs as long as the block."""
    with open_registry(scratch / "bases") as host:
        put_bases(host, "limits/b", 1, MIB, scratch)
        layers = [base_tar({"opt": None, f"opt/{n}": noise(str(n), MIB)}) for n in range(2)]
        write_base(scratch / "image", layers)
        state = scratch / "state"
        clone = Clone.make(scratch / "clone", state)
        for part in ("generated", "lock"):
            shutil.rmtree(clone.root / "images" / part)
        (image,) = write_matrix(clone, host, "limits/b", 1, 1)
        clone.inv("lock")
        # As after any run before: what Python compiles first is not the limit's matter.
        py_compile.compile(str(clone.root / "slipway" / "__init__.py"), doraise=True)
        shutil.rmtree(state)
        state.mkdir()
        yield Place(clone, image, scratch, state, {"image": image, "scratch": str(scratch)})


@dataclass(frozen=True)
class Task:
    """A command. `done` says what is not as it must be once it has ended with 0."""

    name: str
    words: str
    done: Callable[[Place], list[str]] = lambda _: []
    before: Callable[[Place], None] = lambda _: None
    around: Callable[[Place], contextlib.AbstractContextManager[None]] | None = None
    engine: str = "tcp://127.0.0.1:9"  # where nobody answers
    again: str = ""  # goes on where the command itself says that one was cut off


def _locks_lost(place: Place) -> None:
    shutil.rmtree(place.project.locks / "bases", ignore_errors=True)


def _locked(place: Place) -> list[str]:
    files = list((place.project.locks / "bases").glob("*.json"))
    return [] if [f for f in files if json.loads(f.read_text())] else ["no lock"]


def _exported(place: Place, folder: Path | None = None) -> list[str]:
    (path,) = (folder or place.out).glob("*.sqsh")
    verify_sqsh_file(path)
    return []


def _pushed(place: Place) -> list[str]:
    target = start_local_registry(place.project)
    with RegistryClient(target.host, credentials_for(project=place.project)) as registry:
        tags = registry.tags("sagemaker-slipway/fanout")
        builds = [tag for tag in tags if tag.startswith("2.8.0-")]
        if len(builds) != 1:
            return [f"{len(builds)} builds in the registry"]
        manifest = registry.manifest("sagemaker-slipway/fanout", builds[0])
        registry.config("sagemaker-slipway/fanout", manifest)
    return []


def _shipped(place: Place) -> list[str]:
    return [*_pushed(place), *_exported(place, place.project.sqsh)]


@contextlib.contextmanager
def _filled_engine(place: Place) -> Iterator[None]:
    """An embedded engine with an image in it, and a disk to move its data to."""
    target = place.scratch / "disk"
    with disk(target, place.scratch / "disk.img", "xfs", 320 * MIB):
        start_daemon(place.project)
        try:
            engine = connect(place.project, "embedded")
            import_rootfs(engine, io.BytesIO(rootfs_tar()), MOVED)
            engine.close()
            yield
        finally:
            stop_daemon(place.project)
            link = place.project.engine / "data"
            if link.is_symlink():
                link.unlink()


def _moved(place: Place) -> list[str]:
    start_daemon(place.project)
    engine = connect(place.project, "embedded")
    try:
        there = engine.client.images.list(MOVED)
        data = Path(engine.data_root).resolve()
    finally:
        engine.close()
    faults = [] if there else ["the image is lost"]
    if not data.is_relative_to(place.scratch / "disk"):
        faults.append(f"data is at {data}")
    return faults


TASKS = (
    Task("plan", "plan"),
    Task("lock", "lock", _locked, _locks_lost),
    Task("sqsh", "sqsh --from oci:{scratch}/image --output {scratch}/out", _exported),
    Task("push", "push {image} --no-engine", _pushed),
    Task("ship", "ship {image} --no-engine", _shipped),
    Task(
        "storage.move",
        "storage.move {scratch}/disk --mode copy",
        _moved,
        around=_filled_engine,
        engine="embedded",
        again="storage.move --resume",
    ),
)


def half_made(place: Place) -> Iterator[str]:
    """Files that look like work in progress, below all that a task writes."""
    for folder in (place.state, place.out, place.project.locks, place.clone.root / "images"):
        for top, folders, files in os.walk(folder):
            if Path(top) == place.project.engine:
                folders.clear()
            for name in (*folders, *files):
                if ".partial" in name or name.startswith(".tmp"):
                    yield str(Path(top, name).relative_to(place.scratch))
