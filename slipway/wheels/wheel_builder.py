"""Wheels of packages that are published as sdists only, built in a container of the base.

Built once for each sdist, Python ABI and architecture, without network: the build requirements
come from a lock of their own. A wheel without compiled code (py3-none-any) serves every Python.

Layers take over what a wheel has compressed, and which zlib a Python has differs from machine to
machine. So a built wheel is packed anew, with nothing compressed: the same files, the same wheel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import engine
from slipway.core import (
    Event,
    OnEvent,
    PartClaim,
    Project,
    SlipwayError,
    commit,
    partial_file,
    recall_sha256,
    sha256_file,
    silent,
    wait_for_lock,
    write_atomic,
)
from slipway.records import (
    BUILD_ENVIRONMENT,
    Pin,
    PythonLock,
    build_recipe_key,
    build_script,
    wheel_fits,
)
from slipway.wheels.pure_build import build_pure_wheel
from slipway.wheels.wheelhouse import fetch_wheels

if TYPE_CHECKING:
    from slipway.engine import Engine

_TIMEOUT_S = 1800.0
SHARED_KIND = "built-wheels"
_TASK = "build wheels"
_FORMAT = "stored"  # how wheels are kept
_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest of a zip


@dataclass(frozen=True)
class WheelBuilder:
    """Where wheels are built: a container of `base`, by the interpreter that training uses.

    Without an engine only wheels that hold no compiled code can be had, built here.
    `tools` are the wheels of the build requirements (pip, setuptools, wheel), `recipe` their lock.
    `own` has the lock of an sdist that builds with something else, by its pin.
    """

    project: Project
    engine: Engine | None
    base: str
    interpreter: str  # path in the base
    python: str  # "3.12"
    arch: str
    tools: tuple[Path, ...]
    recipe: PythonLock
    own: Mapping[Pin, PythonLock] = field(default_factory=dict)

    def wheel(self, pin: Pin, sdist: Path, on_event: OnEvent = silent) -> Path:
        """The wheel of one sdist, from the cache where it is whole there.

        Raises SlipwayError with the end of the build's output, which is kept as a log.
        """
        folder = self._place(pin, sdist)
        with wait_for_lock(folder.with_suffix(".lock")):
            if cached := self._cached(folder):
                return cached
            shared, key = self.project.shared, f"{folder.name}-{self.python}-{self.arch}"
            claim = shared.claim(SHARED_KIND, key) if shared else None
            with claim or contextlib.nullcontext():
                if shared and claim is None and (part := shared.part(SHARED_KIND, key)):
                    shutil.copytree(part, folder, dirs_exist_ok=True)
                    if cached := self._cached(folder):
                        return cached
                built = self._build_told(pin, sdist, folder, on_event)
                if claim is not None:
                    _publish(claim, built)
                return built

    def _build_told(self, pin: Pin, sdist: Path, folder: Path, on_event: OnEvent) -> Path:
        on_event(Event("start", _TASK, f"{pin.name} {pin.version}"))
        try:
            built = self._build(pin, sdist, folder, self._tools(pin, on_event))
        except SlipwayError as error:
            on_event(Event("failed", _TASK, f"{pin.name} {pin.version}", error.what))
            raise
        on_event(Event("done", _TASK, f"{pin.name} {pin.version}", built.name))
        return built

    def _tools(self, pin: Pin, on_event: OnEvent) -> tuple[Path, ...]:
        """The wheels that one sdist is built with."""
        if pin not in self.own:
            return self.tools
        files = fetch_wheels(self.project, self.own[pin].pins, self.python, self.arch, on_event)
        return tools_of(files)

    def _place(self, pin: Pin, sdist: Path) -> Path:
        """The folder of all wheels of an sdist that this recipe builds."""
        recipe = build_recipe_key(self.project, self.own.get(pin, self.recipe).pins)
        counted = f"{sha256_file(sdist)} {recipe} {_FORMAT}"
        key = hashlib.sha256(counted.encode()).hexdigest()
        return self.project.cache / "built" / key[:32]

    def _cached(self, folder: Path) -> Path | None:
        for wheel in sorted(folder.glob("*.whl")):
            if wheel_fits(wheel.name, self.python, self.arch) is None:
                continue
            noted = wheel.with_name(f"{wheel.name}.sha256")
            if noted.exists() and noted.read_text() == recall_sha256(wheel):
                return wheel
            wheel.unlink()
        return None

    def _build(self, pin: Pin, sdist: Path, folder: Path, tools: Sequence[Path]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        log = self.project.logs / f"wheel-{pin.name}-{pin.version}-py{self.python}.log"
        if self.engine is None:
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
                return _keep(build_pure_wheel(sdist, tools, Path(name), log), folder)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
            inside, out = Path(name, "in"), Path(name, "out")
            inside.mkdir()
            out.mkdir()
            script = build_script(self.project)
            for file in (script, sdist, *tools):
                _link(file, inside / file.name)
            command = [self.interpreter, f"/slipway-in/{script.name}"]
            command += [f"/slipway-in/{sdist.name}", "/slipway-in", "/slipway-out"]
            done = engine.run_once(
                self.engine,
                self.base,
                command,
                engine.ContainerOptions(
                    entrypoint=(),
                    mounts={inside: "/slipway-in", out: "/slipway-out"},
                    writable=[out],
                    env=BUILD_ENVIRONMENT,
                ),
                timeout_s=_TIMEOUT_S,
            )
            write_atomic(log, done.stdout + done.stderr)
            wheels = list(out.glob("*.whl"))
            if done.exit_code != 0 or len(wheels) != 1:
                output = (done.stdout + done.stderr).decode(errors="replace").strip()
                raise SlipwayError(
                    f"the wheel of {pin.name} {pin.version} does not build in {self.base}:\n"
                    + "\n".join(f"  {line}" for line in output.splitlines()[-8:]),
                    where=str(log),
                    cure="The base needs a compiler and Python's headers, and images/lock/python "
                    "has to have what the package builds with.",
                )
            return _keep(wheels[0], folder)


def _keep(wheel: Path, folder: Path) -> Path:
    """Put a whole wheel into the cache, its hash first: a wheel without one does not count."""
    kept = folder / wheel.name
    with partial_file(kept) as partial:
        _pack_anew(wheel, partial)
        partial.chmod(0o644)  # others read it, on a shared folder too
        write_atomic(kept.with_name(f"{kept.name}.sha256"), sha256_file(partial))
        commit(partial, kept)
    return kept


def _pack_anew(wheel: Path, target: Path) -> None:
    """The same files with their modes; .dist-info last, as the specification of wheels advises."""

    def place(member: zipfile.ZipInfo) -> tuple[bool, str]:
        return ".dist-info/" in member.filename, member.filename

    try:
        with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(target, "w") as packed:
            for member in sorted(built.infolist(), key=place):
                entry = zipfile.ZipInfo(member.filename, _TIME)
                entry.create_system, entry.file_size = member.create_system, member.file_size
                entry.external_attr = member.external_attr
                with built.open(member) as source, packed.open(entry, "w") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SlipwayError(f"what was built is not a wheel: {error}", where=wheel.name) from error


def _publish(claim: PartClaim, wheel: Path) -> None:
    """Share a wheel with its hash, which whoever copies it compares."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=wheel.parent) as name:
        for file in (wheel, wheel.with_name(f"{wheel.name}.sha256")):
            _link(file, Path(name, file.name))
        claim.publish(Path(name))


def _link(file: Path, at: Path) -> None:
    """A file at another place without its bytes twice, where the file system can."""
    try:
        os.link(file, at)
    except OSError:
        shutil.copyfile(file, at)


def tools_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """The wheels of the build requirements, checked to have pip among them."""
    if not any(file.name.startswith("pip-") for file in files):
        raise SlipwayError("the build requirements have no pip", cure="Run `./inv lock`.")
    return tuple(files)
