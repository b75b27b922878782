"""What is put beside a pushed image: its bill of materials, and how it was built.

Both are artefacts that name the image as their subject. They are written from what is recorded and
from the base's inventory; the image itself is not scanned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.append import installed_versions
from slipway.core import CredentialsFor, EntryFaults, OnEvent, redact
from slipway.inventory import (
    SPDX_TYPE,
    BilledImage,
    LayeredImage,
    LayerNotes,
    open_layered_image,
    read_inventory,
    run_settings,
    write_bill,
)
from slipway.matrix import Image, explain_image
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.image_run import ImageRun, StageResult
from slipway.records import (
    ImageInventory,
    SystemLock,
    SystemPackage,
    load_inventory,
    python_lock_keys,
    python_lock_text,
    system_lock_keys,
)
from slipway.registry import Artefact, ArtefactFile, list_artefacts, put_artefacts

if TYPE_CHECKING:
    from slipway.registry import Target

BUILD_TYPE = "application/vnd.slipway.build.v1+json"
"""Type of the artefact that says how an image was built."""

_JSON, _TEXT = "application/json", "text/plain"
_LOG_MAX = 4 << 20


@dataclass(frozen=True)
class DocumentSources:
    """Where the documents of a run's images come from, and who may read and write them.

    `base_layers`: how many layers of the image are its base's. `log`: of the build, None where it
    was not built by an engine of this machine. `nearer` gives the pushed image with layers that are
    read from a nearer place than the registry.
    """

    checkout: Checkout
    credentials: CredentialsFor
    on_event: OnEvent
    base_layers: int
    log: Path | None = None
    nearer: Callable[[LayeredImage], LayeredImage] = lambda image: image


def attach_documents(sources: DocumentSources, run: ImageRun, target: Target) -> StageResult:
    """Put the documents beside the image that was pushed, unless it has some already.

    Raises RegistryError.
    """
    started = time.monotonic()
    pushed = run.record.pushed[target.name]
    architecture = run.image.base.facts.architecture
    with open_layered_image(pushed.by_digest, sources.credentials, architecture) as image:
        assert image.repository
        there = list_artefacts(image.repository, pushed.digest, EntryFaults())
        fresh = not any(artefact.kind == SPDX_TYPE for artefact in there)
        if fresh:
            artefacts = [_bill(sources, run, image), _build_record(sources, run)]
            put_artefacts(image.repository, image.manifest, artefacts)
    record = replace(pushed, documented=True)
    run.save(sources.checkout.project, pushed={**run.record.pushed, target.name: record})
    seconds = time.monotonic() - started
    return StageResult("bill", fresh, seconds, f"beside {pushed.by_digest}")


def _bill(sources: DocumentSources, run: ImageRun, image: LayeredImage) -> Artefact:
    cell, locks = run.image, sources.checkout.locks
    base = _base_inventory(sources, cell, image)
    closures = [locks.python[key] for _, key in python_lock_keys(cell, locks.bases)]
    tools = {
        tool.name: (
            tool.version,
            locks.tools[tool.name].files[cell.base.facts.architecture].binary_sha256,
        )
        for tool in sources.checkout.matrix.tools.values()
        if cell.addon(tool.name) and tool.name in locks.tools
    }
    python = installed_versions(
        sources.checkout.dockerfile(cell),
        sources.checkout.project.installer,
        {lock.addon: python_lock_text(lock) for lock in closures},
        base.python,
    )
    packages = [locks.system[key] for _, key in system_lock_keys(cell)]
    inventory = replace(
        base,
        python=python,
        system=_with_packages(base.system, packages),
        config=run_settings(image.config),
        layers=tuple((str(part["digest"]), int(part["size"])) for part in image.layers),
    )
    base_lock = locks.bases.get(cell.base.name)
    assert image.repository
    billed = BilledImage(
        cell.name,
        image.repository.name(),
        image.manifest.digest,
        str(image.config.get("created") or ""),
        f"{cell.base.repository}:{cell.base.tag}",
        (base_lock.digest if base_lock else None) or "",
        {
            pin.name: pin.hashes[0].removeprefix("sha256:")
            for lock in closures
            for pin in lock.pins
            if not pin.source and base.python.get(pin.name) != pin.version
        },
        tools,
        {
            (package.name, package.version, package.architecture): package.sha256
            for lock in packages
            for package in lock.packages
        },
    )
    content = write_bill(billed, inventory, base)
    return Artefact(SPDX_TYPE, (ArtefactFile("bill.spdx.json", SPDX_TYPE, content),))


def _with_packages(
    base: tuple[SystemPackage, ...] | None, layers: Sequence[SystemLock]
) -> tuple[SystemPackage, ...] | None:
    """The packages of the distribution in an image; None where the base's are not known."""
    if base is None:
        return None
    there = {(package.name, package.architecture): package for package in base}
    for lock in layers:
        there = {key: package for key, package in there.items() if key[0] not in lock.removed}
        for p in lock.packages:
            there[p.name, p.architecture] = SystemPackage(
                p.name, p.version, p.architecture, p.source, p.source_version
            )
    return tuple(sorted(there.values()))


def _base_inventory(sources: DocumentSources, cell: Image, image: LayeredImage) -> ImageInventory:
    """As the lock has it; else of the layers that the image has from its base."""
    lock = sources.checkout.locks.bases.get(cell.base.name)
    recorded = load_inventory(sources.checkout.project, lock) if lock and lock.digest else None
    if recorded:
        return recorded
    notes = LayerNotes(sources.checkout.project.cache, sources.checkout.project.shared)
    return read_inventory(
        sources.nearer(image), notes, sources.on_event, cell.base.family.python, sources.base_layers
    )


def _build_record(sources: DocumentSources, run: ImageRun) -> Artefact:
    """The resolved cell, the verification that it passed, and the log of its build."""
    built, verified = run.built, run.record.verified
    base_lock = sources.checkout.locks.bases.get(run.image.base.name)
    cell = {
        **explain_image(run.image),
        "build_id": built.build_id,
        "base_digest": base_lock.digest if base_lock else None,
        "inputs": built.inputs,
    }
    files = [ArtefactFile("cell.json", _JSON, _json(cell))]
    if verified and verified.image_id == built.image_id:
        files.append(ArtefactFile("verify.json", _JSON, _json(asdict(verified))))
    if sources.log and sources.log.is_file():
        text = sources.log.read_bytes()[-_LOG_MAX:].decode("utf-8", "replace")
        files.append(ArtefactFile("build.log", _TEXT, redact(text).encode()))
    return Artefact(BUILD_TYPE, tuple(files))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode()
