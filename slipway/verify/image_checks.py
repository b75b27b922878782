"""Run an image's checks in a pytest of their own, and say what they found."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.core import (
    Event,
    OnEvent,
    Project,
    SlipwayError,
    UsageError,
    silent,
    tree_files,
    tree_sha256,
)
from slipway.engine import Engine, engine_died, remove_stale_containers, sdk_errors
from slipway.matrix import Image, Tool, explain_image
from slipway.records import Locks
from slipway.verify.capabilities import capabilities_of
from slipway.verify.check_process import TESTINFRA, run_checks
from slipway.verify.expectations import (
    expectations_of,
    may_come,
    may_move,
    own_checks,
    system_facts,
)


@dataclass(frozen=True)
class VerifyRequest:
    """What to check: an image in the engine, the base that it was built on, and what pins both.

    `only` chooses checks by name, as pytest's -k does; empty for all.
    """

    image: Image
    reference: str
    base_reference: str
    locks: Locks
    tools: Mapping[str, Tool]
    only: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """How the checks ended. `failures` has one readable entry for each check that failed."""

    passed: int
    failed: int
    deselected_gpu: int
    seconds: float
    junit: Path
    failures: tuple[str, ...]


_BAD_PATTERN, _NOTHING_CHOSEN = 4, 5  # pytest's exit codes


def check_folders(project: Project, image: Image) -> list[Path]:
    """The folders of an image's checks. Raises SlipwayError where a claim has no checks."""
    folders = []
    for capability in capabilities_of(image):
        folder = project.image_tests / capability.folder
        if not list(folder.glob("test_*.py")):
            if not capability.own_checks:
                continue
            raise SlipwayError(
                f"{image.name} has {capability.name} ({capability.because}), and there is no check"
                " for it",
                where=str(folder),
                cure="Add one: a test_*.py whose tests say what is guaranteed.",
            )
        folders.append(folder)
    return folders


def suite_hash(project: Project, image: Image, locks: Locks) -> str:
    """Hash over the checks of an image and what they expect: the same hash, the same verdict."""
    digest = hashlib.sha256()
    for folder in [*check_folders(project, image), project.root / "slipway" / "verify"]:
        digest.update(f"{folder.name} {tree_sha256(folder)}\n".encode())
    for path in tree_files(project.image_tests):
        if path.parent == project.image_tests:  # conftest.py, allowed.yaml
            digest.update(path.read_bytes())
    expected = {
        "cell": explain_image(image),
        "may_move": may_move(image),
        "may_come": may_come(image, locks),
        "size_budget_mb": image.size_budget_mb,
        **({"checks": checks} if (checks := own_checks(image)) else {}),
        **({"system": system} if any(system := system_facts(image, locks)) else {}),
    }
    digest.update(json.dumps(expected, sort_keys=True).encode())
    return digest.hexdigest()


def has_gpu(engine: Engine) -> bool:
    """Whether the engine can give a container a GPU."""
    with sdk_errors(engine, "asking for GPUs"):
        return "nvidia" in (engine.client.info().get("Runtimes") or {})


def verify_image(
    project: Project,
    engine: Engine,
    request: VerifyRequest,
    *,
    on_event: OnEvent = silent,
    log: Path,
    timeout_s: float = 3600,
) -> VerifyReport:
    """Check that an image is what the matrix says of it; what failed is in the report.

    `log` gets pytest's whole output, a JUnit file comes beside it. Raises SlipwayError where the
    checks could not run at all, or took longer than `timeout_s`.
    """
    image = request.image
    task = f"verify {image.name}"
    started = time.monotonic()
    remove_stale_containers(engine)
    subject = expectations_of(
        project,
        engine,
        image,
        (request.reference, request.base_reference),
        request.locks,
        request.tools,
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    junit = log.with_suffix(".xml")
    on_event(Event("start", task))
    with tempfile.TemporaryDirectory(prefix="slipway-verify-") as folder:
        handed_over = Path(folder) / "subject.json"
        handed_over.write_text(subject.to_json())
        command = [sys.executable, "-m", "pytest", "-p", "slipway.verify.plugin"]
        command += ["-p", f"no:{TESTINFRA}", "-p", "no:cacheprovider", "--import-mode=importlib"]
        command += ["--rootdir", str(project.root), "-c", str(project.root / "pyproject.toml")]
        command += [
            f"--slipway-subject={handed_over}",
            f"--junitxml={junit}",
            "-v",
            "--durations=12",
        ]
        command += ["--slipway-gpu"] if has_gpu(engine) else []
        command += ["-k", request.only] if request.only else []
        command += [str(folder) for folder in check_folders(project, image)]
        heard, code = run_checks(command, project.root, log, timeout_s, task, on_event)
    if request.only and code in (_NOTHING_CHOSEN, _BAD_PATTERN):
        on_event(Event("failed", task))
        raise UsageError(
            f"no check of {image.name} matches {request.only!r}",
            cure=f"`./inv verify {image.name} --why` lists what is checked, {log} all names.",
        )
    if heard.failures and not engine.answers():
        raise engine_died(engine, f"checking {image.name}")
    unheard = heard.passed + len(heard.failures) < heard.total
    if code not in (0, 1) or heard.total == 0 or unheard:
        on_event(Event("failed", task))
        raise SlipwayError(
            f"the checks of {image.name} could not run (pytest exit code {code})", where=str(log)
        )
    report = VerifyReport(
        passed=heard.passed,
        failed=len(heard.failures),
        deselected_gpu=heard.deselected,
        seconds=time.monotonic() - started,
        junit=junit,
        failures=tuple(heard.failures),
    )
    on_event(Event("failed" if report.failures else "done", task, text=verify_summary(report)))
    return report


def verify_summary(report: VerifyReport) -> str:
    """One line: how many passed, failed, and were not run."""
    text = f"{report.passed} passed, {report.failed} failed"
    if report.deselected_gpu:
        text += f", {report.deselected_gpu} NOT run: they need a GPU"
    return text
