"""`inv doctor`: what this machine can do, and the cure for what it cannot. Changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from slipway.core import Project, SlipwayError, human_bytes
from slipway.derive import expected_files, find_drift
from slipway.engine import EngineUnavailableError, connect, starts_embedded
from slipway.matrix import past_support
from slipway.pipeline import host_tools
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings
from slipway.registry import find_aws_credentials, local_registry_status

State = Literal["ok", "note", "wrong"]

ENOUGH_DISK = 20_000_000_000
"""Bytes: one DLC base unpacked takes about this much."""


@dataclass(frozen=True)
class MachineCheck:
    """One finding. `wrong` keeps the main job from working; `note` is worth knowing."""

    state: State
    name: str
    found: str
    cure: str = ""

    def row(self) -> tuple[str, str, str]:
        """For a table."""
        mark = {"ok": "ok", "note": "note", "wrong": "WRONG"}[self.state]
        return (mark, self.name, self.found + (f"\n-> {self.cure}" if self.cure else ""))

    def as_json(self) -> dict[str, str]:
        """For a program."""
        return asdict(self)


def _rights() -> MachineCheck:
    if os.geteuid() == 0:
        return MachineCheck("ok", "rights", "root")
    return MachineCheck(
        "note", "rights", "not root", "Installing tools and the embedded engine need root (sudo)."
    )


def _tools() -> MachineCheck:
    missing = host_tools.missing_tools()
    if not missing:
        return MachineCheck("ok", "host tools", "all found")
    names = ", ".join(tool.name for tool in missing)
    return MachineCheck("wrong", "host tools", f"missing: {names}", "Run `./inv setup`.")


def engine_checks(root: Path, choice: str) -> list[MachineCheck]:
    """What `ship` finds as its engine, and the room on its disk. Starts nothing."""
    project = Project.at(root)
    startable = False
    try:
        startable = (
            starts_embedded(choice) and os.geteuid() == 0 and shutil.which("dockerd") is not None
        )
        engine = connect(project, choice, start=False)
    except EngineUnavailableError as error:
        if startable:
            return [MachineCheck("ok", "engine", "none runs; `ship` starts the embedded one")]
        return [MachineCheck("wrong", "engine", error.what, error.cure or "")]
    try:
        kind = "embedded" if engine.embedded else "yours"
        store = "containerd image store" if engine.containerd_store else "graph driver"
        results = [
            MachineCheck(
                "ok", "engine", f"{engine.kind} {engine.version} ({kind}, {store}) {engine.url}"
            )
        ]
        free = shutil.disk_usage(engine.data_root).free if Path(engine.data_root).is_dir() else None
    finally:
        engine.close()
    if free is not None:
        enough = free >= ENOUGH_DISK
        results.append(
            MachineCheck(
                "ok" if enough else "note",
                "engine disk",
                f"{human_bytes(free)} free in {engine.data_root}",
                "" if enough else "One DLC base takes about 20 GB here.",
            )
        )
    return results


def _matrix(root: Path) -> list[MachineCheck]:
    checkout = Checkout.at(root)
    files = expected_files(checkout.project, checkout.matrix, checkout.locks)
    differ = len(find_drift(checkout.project, files))
    checks = [
        MachineCheck("wrong", "generated files", f"{differ} differ", "Run `./inv generate`.")
        if differ
        else MachineCheck("ok", "generated files", f"all {len(files)} as versions.yaml gives them")
    ]
    bases, locks, today = checkout.matrix.bases, checkout.locks.bases, date.today()
    past = [base.name for base in bases if past_support(base, today)]
    if past:
        checks.append(MachineCheck("note", "past support", _some(past, len(bases))))
    used = {image.base.name: image.base for image in checkout.matrix.images}
    open_ones = [
        name
        for name, base in sorted(used.items())
        if base.registry and not (name in locks and locks[name].digest)
    ]
    if open_ones:
        cure = "Run `./inv lock` where their registries can be reached; see `./inv plan`."
        checks.append(
            MachineCheck("note", "bases without digest", _some(open_ones, len(used)), cure)
        )
    return checks


def _some(names: Sequence[str], of: int) -> str:
    return f"{len(names)} of {of}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"


def _registry(root: Path) -> MachineCheck:
    status = local_registry_status(Project.at(root))
    if status.running and status.target:
        return MachineCheck("ok", "registry", f"running on {status.target.host}")
    return MachineCheck("ok", "registry", "not running; `push` starts it")


def _aws() -> MachineCheck:
    try:
        method = find_aws_credentials()
    except SlipwayError as error:
        cure = f"{error.cure or ''} Needed only for private ECR.".strip()
        return MachineCheck("note", "AWS credentials", error.what, cure)
    if method is None:
        return MachineCheck("note", "AWS credentials", "none", "Needed only for private ECR.")
    return MachineCheck("ok", "AWS credentials", f"found ({method})")


def check_machine(root: Path, config: Any) -> tuple[MachineCheck, ...]:
    """All checks, each on its own: one that fails to answer is a finding, not the end."""
    settings = Settings.of(config)
    parts: Sequence[Callable[[], MachineCheck | list[MachineCheck]]] = (
        _rights,
        _tools,
        lambda: engine_checks(root, settings.engine),
        lambda: _matrix(root),
        lambda: _registry(root),
        _aws,
    )
    checks: list[MachineCheck] = []
    for part in parts:
        try:
            result = part()
        except SlipwayError as error:
            result = MachineCheck("wrong", "versions.yaml", error.what, error.cure or "")
        checks += result if isinstance(result, list) else [result]
    return tuple(checks)


def raise_for(checks: Sequence[MachineCheck]) -> None:
    """Raise SlipwayError when something keeps the main job from working."""
    wrong = [check.name for check in checks if check.state == "wrong"]
    if wrong:
        raise SlipwayError(f"not right: {', '.join(wrong)}")
