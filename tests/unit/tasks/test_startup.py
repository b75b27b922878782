"""What a command imports: nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = {"boto3", "botocore", "docker", "h2", "jinja2", "pydantic", "pytest", "requests", "rich"}
ROOMS = sorted(path.parent.name for path in ROOT.glob("slipway/*/__init__.py"))

PROGRAM = """
import json, sys
from slipway.tasks.cli import InvProgram
try:
    InvProgram(name="Slipway", binary="inv", version="0").run(["inv", *sys.argv[1:]])
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_of(*arguments: str, state: Path) -> set[str]:
    """The modules that a command has imported at its end."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--search-root", str(ROOT), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_STATE": str(state)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--list"],
        ["--help", "ship"],
        ["slurm.script", "--help"],
        ["--print-completion-script", "bash"],
        ["--complete", "--", "inv", "ship", "pytorch-2.1"],
        ["shp"],
    ],
    ids=" ".join,
)
def test_what_needs_no_room_imports_none(arguments: list[str], tmp_path: Path) -> None:
    loaded = modules_of(*arguments, state=tmp_path)
    assert loaded & HEAVY == set()
    inside = {
        name
        for name in loaded
        if name.startswith(tuple(f"slipway.{room}." for room in ROOMS))
        and not name.startswith(("slipway.core.", "slipway.tasks."))
    }
    assert inside == set()


def test_a_plan_imports_no_docker_no_aws_and_the_second_one_no_schemas(tmp_path: Path) -> None:
    first = modules_of("plan", "--json", state=tmp_path)
    assert first & {"boto3", "botocore.session", "docker", "h2", "pytest", "requests"} == set()
    second = modules_of("plan", "--json", state=tmp_path)
    assert second & {"pydantic", "ruamel.yaml"} == set()


def test_a_build_without_an_engine_imports_no_docker(tmp_path: Path) -> None:
    words = ("build", "local-ds0.19.2", "--no-engine", "--base-from", f"oci:{tmp_path / 'none'}")
    modules = modules_of(*words, state=tmp_path / "state")
    assert "slipway.append.append_build" in modules
    assert modules & {"boto3", "docker", "h2", "pytest"} == set()


def test_a_command_lets_python_keep_what_it_compiles(tmp_path: Path) -> None:
    script = PROGRAM.replace("sorted(sys.modules)", "sys.dont_write_bytecode")
    ended = subprocess.run(
        [sys.executable, "-c", script, "--search-root", str(ROOT), "--list"],
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "false"
    assert list(tmp_path.rglob("commands.*.pyc"))
