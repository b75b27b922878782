"""Completion: what may come next, and the script of a shell that asks for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from slipway.matrix import load_matrix
from slipway.tasks.cli import InvProgram
from slipway.tasks.completion import SCRIPTS, list_image_names

ROOT = Path(__file__).parents[3]
TASKS = sorted(tasks.ns.task_names)


def complete(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What the last of `words` may become."""
    program = InvProgram(namespace=tasks.ns, name="Slipway", binary="inv")
    with pytest.raises(SystemExit) as ended:
        program.run(["inv", "--complete", "--", "./inv", *words])
    assert not ended.value.code
    return capsys.readouterr().out.splitlines()


def test_the_first_word_is_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(TASKS) <= set(complete(capsys, ""))
    assert complete(capsys, "sh") == ["ship"]
    assert complete(capsys, "storage.m") == ["storage.move"]
    assert complete(capsys, "--help", "sli") == []
    assert complete(capsys, "--help", "slurm.sc") == ["slurm.script"]


@pytest.mark.parametrize("name", TASKS)
def test_each_task_is_completed_with_its_flags_and_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = set(complete(capsys, name, "-"))
    (context,) = (context for context in tasks.ns.to_contexts() if context.name == name)
    assert flags == {*context.flags, "--help"}


@pytest.mark.parametrize("name", [name for name in TASKS if tasks.ns[name].image_argument])
def test_each_task_that_takes_images_is_completed_with_them(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {image.name for image in load_matrix(ROOT / "versions.yaml").images}
    assert set(complete(capsys, name, "")) == names == set(list_image_names(ROOT))
    first = min(names)
    more = complete(capsys, name, first, "")
    assert more == ([] if tasks.ns[name].image_argument == "name" else sorted(names - {first}))


def test_every_argument_that_names_images_is_completed() -> None:
    takes = {c.name for c in tasks.ns.to_contexts() if {"--names", "--name"} & set(c.flags)}
    completed = {name for name in TASKS if tasks.ns[name].image_argument}
    assert takes - completed == {"storage.move"}  # a folder


@pytest.mark.parametrize(
    "words",
    [
        ["ship", "--output", ""],  # a folder: the shell has files
        ["ship", "--region", ""],
        ["sqsh.verify", ""],
        ["storage.move", "/fsx"],
        ["slurm.script", "local", "--", "tra"],
        ["no-such-task", "--"],
    ],
)
def test_where_no_word_of_ours_may_stand_there_is_none(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [word for word in complete(capsys, *words) if word in TASKS or "pytorch" in word] == []


def test_a_value_is_not_taken_for_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "local" in complete(capsys, "ship", "--jobs", "2", "lo")
    assert "local" in complete(capsys, "ship", "-j", "2", "lo")
    assert "local" in complete(capsys, "ship", "--json", "lo")
    assert complete(capsys, "plan", "ship", "--forc") == ["--force"]  # the last task counts


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable `inv` that is this checkout's command line."""
    path = tmp_path / "a folder" / "inv"
    path.parent.mkdir()
    words = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT)]
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("command", ["inv", "./inv"])
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["shi"], ["ship"]),
        (["storage.re"], ["storage.restore"]),
        (["ship", "--unl"], ["--unlocked"]),
        (["ship", "local-ds0.19.8", "--json", "local-hyp"], ["local-hyperpod-ds0.19.8"]),
        (["ship", "--output", ""], []),
    ],
    ids=str,
)
def test_bash_completes(command: str, words: list[str], wanted: list[str], program: Path) -> None:
    script = "\n".join(
        [
            SCRIPTS["bash"],
            f"COMP_WORDS=({shlex.join([command, *words])})",
            f"COMP_CWORD={len(words)}",
            'complete -p inv >/dev/null || exit 1; _slipway_inv; printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    ended = subprocess.run(
        ["bash", "-euc", script],
        cwd=program.parent,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == wanted


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_script_of_each_shell_is_printed(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        InvProgram(name="Slipway", binary="inv").run(["inv", "--print-completion-script", shell])
    assert not ended.value.code
    assert capsys.readouterr().out == SCRIPTS[shell]
    assert "cli.py" not in SCRIPTS[shell]


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        InvProgram(name="Slipway", binary="inv").run(["inv", "--print-completion-script", "csh"])
    assert ended.value.code == 3
    assert "bash" in capsys.readouterr().err
