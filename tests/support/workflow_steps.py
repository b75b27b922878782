"""The steps of a GitHub workflow, run here: its `run` lines by the shell that GitHub takes.

Expressions are looked up by name, `uses` are those listed below, and everything else is an error:
a workflow that needs more than this knows is not tested by it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

#: Actions that make what is here already: a checkout, a Python, logins, caches.
PASSED = ("checkout", "setup-python", "configure-aws-credentials", "cache")
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
#: docs.github.com, "Workflow syntax", jobs.<job_id>.steps[*].shell: what `shell: bash` means.
_SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


@dataclass
class StepResult:
    """What became of a job: the first failed step ends it, but for those that run always."""

    failed: str = ""
    printed: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""


@dataclass
class WorkflowRun:
    """One run of a workflow in a checkout. `artifacts` are what its jobs have uploaded."""

    path: Path
    checkout: Path
    inputs: Mapping[str, str]
    env: Mapping[str, str]
    artifacts: Path

    @property
    def document(self) -> Any:
        """The workflow."""
        return YAML(typ="safe").load(self.path)

    def job(self, name: str, context: Mapping[str, str] | None = None) -> StepResult:
        """Run a job's steps, in order."""
        assert self.document["defaults"]["run"]["shell"] == "bash"
        values = {f"inputs.{key}": value for key, value in self.inputs.items()}
        values.update(context or {})
        result = StepResult()
        for step in self.document["jobs"][name]["steps"]:
            if result.failed and step.get("if") != "always()":
                continue
            if "uses" in step:
                self._use(step, values)
            else:
                self._run(step, values, result)
        return result

    def _use(self, step: Mapping[str, Any], values: Mapping[str, str]) -> None:
        action = step["uses"].partition("@")[0].rpartition("/")[2]
        given = {key: self._filled(value, values) for key, value in step.get("with", {}).items()}
        if action == "upload-artifact":
            place = self.checkout / given["path"]
            shutil.copytree(place, self.artifacts / given["name"])
            shutil.rmtree(place)  # the next job begins with an empty checkout
        elif action == "download-artifact":
            assert given["merge-multiple"] is True
            for folder in self.artifacts.glob(given["pattern"]):
                shutil.copytree(folder, self.checkout / given["path"], dirs_exist_ok=True)
        else:
            assert action in PASSED, action

    def _run(self, step: Mapping[str, Any], values: Mapping[str, str], result: StepResult) -> None:
        files = {name: self.artifacts / name.lower() for name in ("OUTPUT", "STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        own = {key: self._filled(value, values) for key, value in step.get("env", {}).items()}
        assert "${{" not in step["run"]  # an input that is a command would be run
        script = self.artifacts / "script.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            [*_SHELL, str(script)],
            cwd=self.checkout,
            env={**self.env, **own, **{f"GITHUB_{key}": str(at) for key, at in files.items()}},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        result.printed += done.stdout
        result.summary += files["STEP_SUMMARY"].read_text()
        for line in files["OUTPUT"].read_text().splitlines():
            key, _, value = line.partition("=")
            result.outputs[key] = value
        if done.returncode:
            result.failed = step["run"]

    def _filled(self, value: Any, values: Mapping[str, str]) -> Any:
        if not isinstance(value, str) or "hashFiles" in value:
            return value
        return _EXPRESSION.sub(lambda match: values[match[1]], value)
