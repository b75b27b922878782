"""Run an image's checks in a pytest of their own, and say what they found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slipway.engine.client import Engine
from slipway.engine.images import remove_leftovers
from slipway.errors import SlipwayError
from slipway.files import tree_files, tree_sha256
from slipway.lock.files import load_locks
from slipway.matrix.model import Image
from slipway.matrix.show import explain
from slipway.paths import Project
from slipway.report.events import Event, OnEvent, silent
from slipway.verify.plugin import TESTINFRA
from slipway.verify.select import capabilities
from slipway.verify.subject import may_come, may_move, subject_of

_ENDING_S = 30.0
"""Time that an interrupted pytest gets to remove its containers."""


_LINES, _WIDE = 12, 300
"""Of a failure's message, as much as a person reads at once."""


@dataclass(frozen=True)
class VerifyReport:
    """How the checks ended. `failures` has one readable entry for each check that failed."""

    passed: int
    failed: int
    deselected_gpu: int
    seconds: float
    junit: Path
    failures: tuple[str, ...]


def folders(project: Project, image: Image) -> list[Path]:
    """The folders of an image's checks. Raises SlipwayError where a claim has no checks."""
    found = []
    for capability in capabilities(image):
        folder = project.image_tests / capability.folder
        if not folder.is_dir() or not list(folder.glob("test_*.py")):
            raise SlipwayError(
                f"{image.name} has {capability.name} ({capability.because}), and there is no check"
                " for it",
                where=str(folder),
                cure="Add one: a test_*.py whose tests say what is guaranteed.",
            )
        found.append(folder)
    return found


def suite_hash(project: Project, image: Image) -> str:
    """Hash over the checks of an image and what they expect: the same hash, the same verdict."""
    digest = hashlib.sha256()
    for folder in [*folders(project, image), project.root / "slipway" / "verify"]:
        digest.update(f"{folder.name} {tree_sha256(folder)}\n".encode())
    for path in tree_files(project.image_tests):
        if path.parent == project.image_tests:  # conftest.py, allowed.yaml
            digest.update(path.read_bytes())
    expected = {
        "cell": explain(image),
        "may_move": may_move(image),
        "may_come": may_come(image, load_locks(project)),
        "size_budget_mb": image.size_budget_mb,
    }
    digest.update(json.dumps(expected, sort_keys=True).encode())
    return digest.hexdigest()


def has_gpu(engine: Engine) -> bool:
    """Whether the engine can give a container a GPU."""
    return "nvidia" in (engine.client.info().get("Runtimes") or {})


def verify(
    project: Project,
    engine: Engine,
    image: Image,
    reference: str,
    base_reference: str,
    *,
    on_event: OnEvent = silent,
    log: Path,
    timeout_s: float = 3600,
) -> VerifyReport:
    """Check that `reference` is what the matrix says of `image`; what failed is in the report.

    `log` gets pytest's whole output, a JUnit file comes beside it. Raises SlipwayError where the
    checks could not run at all, or took longer than `timeout_s`.
    """
    task = f"verify {image.name}"
    started = time.monotonic()
    chosen = folders(project, image)
    remove_leftovers(engine)
    subject = subject_of(project, engine, image, reference, base_reference)
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
        heard, code = _run(command, chosen, project.root, log, timeout_s, task, on_event)
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
    on_event(Event("failed" if report.failures else "done", task, text=summary(report)))
    return report


def summary(report: VerifyReport) -> str:
    """One line: how many passed, failed, and were not run."""
    text = f"{report.passed} passed, {report.failed} failed"
    if report.deselected_gpu:
        text += f", {report.deselected_gpu} NOT run: they need a GPU"
    return text


class _Heard:
    """What the checks' process has said so far."""

    def __init__(self, task: str, on_event: OnEvent) -> None:
        self.total = self.deselected = self.passed = self._begun = 0
        self.failures: list[str] = []
        self._task, self._on_event = task, on_event

    def listen(self, stream: IO[str]) -> None:
        for line in stream:
            said = json.loads(line)
            check = str(said.get("check", "")).removeprefix("tests/image/")
            if said["what"] == "start":
                self.total, self.deselected = said["total"], said["deselected"]
            elif said["what"] == "check":
                self._begun += 1
                step = check.rpartition("::")[2]
                event = Event("progress", self._task, step, current=self._begun, total=self.total)
                self._on_event(event)
            elif said["what"] == "passed":
                self.passed += 1
            else:
                self.failures.append(f"{check}: {_short(said['message'])}")


def _short(message: str) -> str:
    """The beginning of a message; a container's whole log may be in it, and is in the log file."""
    lines = [line[:_WIDE] for line in message.strip().splitlines()]
    return "\n    ".join(lines if len(lines) <= _LINES else [*lines[:_LINES], "..."])


def _run(
    command: list[str],
    chosen: list[Path],
    root: Path,
    log: Path,
    timeout_s: float,
    task: str,
    on_event: OnEvent,
) -> tuple[_Heard, int]:
    reading, writing = os.pipe()
    heard = _Heard(task, on_event)
    with os.fdopen(reading) as stream, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--slipway-report={writing}", *map(str, chosen)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,  # a Ctrl-C is passed on below, once
        )
        os.close(writing)
        listener = threading.Thread(target=heard.listen, args=(stream,), daemon=True)
        listener.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise SlipwayError(
                f"the checks did not end within {timeout_s:g} s", where=str(log)
            ) from error
        finally:
            _end(process)
            listener.join(_ENDING_S)
    return heard, code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have an interrupted pytest remove its containers, then make sure that it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_S)
    if process.poll() is None:
        process.kill()
        process.wait()
