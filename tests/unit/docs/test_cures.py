"""What the code tells people to type exists: commands and flags in cures, messages, docstrings."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from tests.unit.docs.test_docs import exit_code

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "tasks.py", *sorted((ROOT / "slipway").rglob("*.py"))]
_QUOTED = re.compile(r"`((?:sudo )?(?:\./)?inv [^`]+)`")
_BARE = re.compile(r"(?<!`)\./inv [a-z][^`\n]*?(?=[.,;:]?(?:\s*$|\n|\. ))", re.MULTILINE)
#: Flags of other programs that a cure names.
FOREIGN = {
    "--epochs",  # a training script's
    "--no-install-recommends",  # apt-get's
    "--root",  # containerd's
}


def texts(tree: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Every string that is written out, an f-string as one."""
    parts = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for inner in ast.walk(node)
        if inner is not node
    }
    for node in ast.walk(tree):
        written = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (written or isinstance(node, ast.JoinedStr)) and id(node) not in parts:
            assert isinstance(node, ast.Constant | ast.JoinedStr)
            yield node


def text_of(node: ast.Constant | ast.JoinedStr) -> str:
    """The string, with a word for each value that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values
    )


def commands(text: str) -> list[str]:
    """The commands that a text tells a person to type."""
    return [*_QUOTED.findall(text), *_BARE.findall(_QUOTED.sub("", text))]


def parses(command: str) -> bool:
    """Whether the words make a command; what stands for something else is filled in."""
    words = command.removeprefix("sudo ").replace("...", "").strip()
    words = re.sub(r"\[.*?\]", "", words)
    words = re.sub(r"--help (TASK|1)$", "--help ship", words)
    if words.split()[1:] in NAMED:
        return True  # it is spoken of, not told to be typed
    try:
        return exit_code(shlex.join(shlex.split(words))) == 0
    except ValueError:
        return False


#: A task or a family of tasks, alone.
NAMED = [[name] for name in {*tasks.ns.task_names, *tasks.ns.collections}]

FOUND = [
    pytest.param(command, id=f"{path.relative_to(ROOT)}:{node.lineno}")
    for path in FILES
    for node in texts(ast.parse(path.read_text()))
    for command in commands(text_of(node))
]


def test_commands_are_found_in_what_is_printed_and_in_docstrings() -> None:
    assert commands("Run `./inv lock`, or build.") == ["./inv lock"]
    assert commands("See `sudo ./inv ship` and\n./inv plan x.") == [
        "sudo ./inv ship",
        "./inv plan x",
    ]
    assert len(FOUND) > 40


@pytest.mark.parametrize("command", FOUND)
def test_a_command_that_the_code_names_exists(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert parses(command), (command, capsys.readouterr().err)


def test_a_command_that_does_not_exist_is_seen() -> None:
    for command in ("./inv no-such-task", "./inv ship --engine embedded", "inv plan --jobs 2"):
        assert not parses(command)


def cures() -> Iterator[tuple[str, str]]:
    """(place, text) of every `cure=...` that is written out."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "cure":
                for text in texts(node.value):
                    yield f"{path.relative_to(ROOT)}:{text.lineno}", text_of(text)


def test_every_flag_that_a_cure_names_is_one_of_a_task() -> None:
    known = {flag for context in tasks.ns.to_contexts() for flag in context.flags}
    known |= FOREIGN | {"--help"}
    seen = [
        (place, flag)
        for place, text in cures()
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    ]
    assert len(seen) > 6
    assert [(place, flag) for place, flag in seen if flag not in known] == []
