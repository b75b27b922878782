"""The embedded default base: DLC-shaped, CPU only, made without a registry (images/local)."""

from __future__ import annotations

import os
from pathlib import Path

from slipway.core import (
    CredentialsFor,
    Event,
    OnEvent,
    Project,
    SlipwayError,
    anonymous,
    exclusive,
)
from slipway.engine import (
    BuildAttempt,
    BuildRequest,
    ContextFile,
    Engine,
    build_image,
    find_image_id,
    import_rootfs,
    inspect_image,
)
from slipway.local_base import apt
from slipway.local_base.recipe import local_base_id
from slipway.local_base.rootfs import CODENAME, make_rootfs, rootfs_id, rootfs_is_there
from slipway.matrix import LOCAL_REGISTRY, Base
from slipway.records import PythonLock, python_lock_text
from slipway.wheels import NotOfferedError, fetch_wheels, host_acquire_settings, no_cpu_torch

RECIPE_LABEL = "io.slipway.local-base"
DEBIAN_REGISTRY = "SLIPWAY_DEBIAN_REGISTRY"
"""Environment variable: where the fallback takes `debian` from, "docker.io/library" by default."""


def local_base_reference(base: Base) -> str:
    """The base's name in the engine. Its registry cannot exist, so it can only be found there."""
    return f"{LOCAL_REGISTRY}/{base.repository}:{base.tag}"


def ensure_local_base(
    project: Project,
    engine: Engine,
    base: Base,
    lock: PythonLock | None,
    on_event: OnEvent,
    credentials: CredentialsFor = anonymous,
) -> str:
    """Have the base in the engine and give its reference; does nothing where it is there already.

    `lock` pins its wheels.

    Needs the network for Debian packages and wheels that are not in the cache, and no registry
    unless mmdebstrap is missing. Raises SlipwayError: no CPU build of torch is offered, packages
    cannot be fetched, the engine fails.
    """
    name, recipe = local_base_reference(base), local_base_id(project, base, lock)
    task = f"base {base.name}"
    if _recipe_of(engine, name) == recipe:
        on_event(Event("cached", task))
        return name
    if lock is None:
        raise SlipwayError(
            f"the wheels of {base.name} are not locked",
            where=str(project.locks),
            cure="Run `./inv lock`.",
        )
    on_event(Event("start", task))
    try:
        _make_base(project, engine, base, lock, on_event, credentials)
    except BaseException:
        on_event(Event("failed", task))
        raise
    on_event(Event("done", task))
    return name


def _make_base(
    project: Project,
    engine: Engine,
    base: Base,
    lock: PythonLock,
    on_event: OnEvent,
    credentials: CredentialsFor,
) -> None:
    log = project.logs / f"base-{base.name}.log"
    with exclusive(project.cache / "local-base.lock", f"make {base.name}"):
        wheels = _wheels(project, base, lock, on_event)
        rootfs = _rootfs_image(project, engine, on_event, log, credentials)
        build_image(
            engine,
            BuildRequest(
                dockerfile=(project.local_base / "Dockerfile").read_text("utf-8"),
                context=_context(project, lock, wheels),
                tags=(local_base_reference(base),),
                build_args={"ROOTFS": rootfs},
                labels={RECIPE_LABEL: local_base_id(project, base, lock)},
                secrets={},
            ),
            BuildAttempt(
                task=f"base {base.name}",
                credentials=credentials,
                on_event=on_event,
                log=log,
            ),
        )


def _recipe_of(engine: Engine, name: str) -> str | None:
    if find_image_id(engine, name) is None:
        return None
    labels = inspect_image(engine, name)["Config"].get("Labels") or {}
    return labels.get(RECIPE_LABEL)


def _wheels(project: Project, base: Base, lock: PythonLock, on_event: OnEvent) -> list[Path]:
    try:
        return fetch_wheels(
            project, lock.pins, base.facts.python, base.facts.architecture, on_event
        )
    except NotOfferedError as error:
        if "torch" not in error.names:
            raise
        raise no_cpu_torch(base) from error


def _rootfs_image(
    project: Project, engine: Engine, on_event: OnEvent, log: Path, credentials: CredentialsFor
) -> str:
    route = "mmdebstrap" if rootfs_is_there() else "debian"
    name = f"{LOCAL_REGISTRY}/slipway/rootfs:{route}-{rootfs_id(project)[:16]}"
    if find_image_id(engine, name):
        return name
    if rootfs_is_there():
        tar = make_rootfs(project, on_event, log.with_name(f"{log.stem}-rootfs.log"))
        with tar.open("rb") as stream:
            import_rootfs(engine, stream, name)
    else:
        task = "root file system"
        on_event(Event("start", task))
        build_image(
            engine,
            local_base_request(project, name),
            BuildAttempt(
                task=task,
                credentials=credentials,
                on_event=on_event,
                log=log.with_name(f"{log.stem}-rootfs.log"),
            ),
        )
        on_event(Event("done", task))
    return name


def local_base_request(project: Project, tag: str) -> BuildRequest:
    """The build that stands in for mmdebstrap: the same packages on an ordinary Debian image."""
    bundle = apt.ca_bundle(os.environ)
    certificates = 'Acquire::https::CAInfo "/run/secrets/ca.crt";\n' if bundle else ""
    settings = host_acquire_settings() + apt.proxy_settings(os.environ) + certificates
    registry = os.environ.get(DEBIAN_REGISTRY)
    listed, stanzas = apt.split_entries(apt.host_sources(CODENAME))
    return BuildRequest(
        dockerfile=(project.local_base / "Dockerfile.debian").read_text("utf-8"),
        context=tuple(
            ContextFile(f"debian/{name}", project.local_base / name)
            for name in ("install_packages.sh", "packages.txt", "dpkg.cfg")
        ),
        tags=(tag,),
        build_args={"BASE_REGISTRY": registry} if registry else {},
        labels={},
        secrets={
            "apt.conf": settings.encode(),
            "ca.crt": bundle.read_bytes() if bundle else b"",
            "host.list": listed.encode(),
            "host.sources": stanzas.encode(),
        },
        network="host",
    )


def _context(project: Project, lock: PythonLock, wheels: list[Path]) -> tuple[ContextFile, ...]:
    recipe, entrypoint = project.local_base, "start_with_right_hostname.sh"
    return (
        ContextFile(entrypoint, recipe / entrypoint, 0o755),
        ContextFile("python/make_venv.py", recipe / "make_venv.py"),
        ContextFile("python/requirements.txt", python_lock_text(lock).encode()),
        *(ContextFile(f"python/wheels/{path.name}", path) for path in wheels),
    )
