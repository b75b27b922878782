"""What the documents say: their commands are ones that exist, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from slipway.tasks.cli import InvProgram

ROOT = Path(__file__).parents[3]
FOLDERS = [place for place in ROOT.iterdir() if place.is_dir() and not place.name.startswith(".")]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for place in FOLDERS for path in place.rglob("*.md"))]
)
_FENCED = re.compile(r"^```.*?^```|(?:^ {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(\./inv [^`]*)`")
_LINK = re.compile(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)")


class Parsed(InvProgram):
    """Parses, and runs nothing."""

    def execute(self) -> None:
        """Nothing."""


def exit_code(command: str) -> int | str:
    """Of the command, parsed."""
    words = shlex.split(command, comments=True)
    try:
        Parsed(namespace=tasks.ns, name="Slipway", binary="inv").run(["inv", *words[1:]])
    except SystemExit as end:
        return end.code or 0
    return 0


def commands(text: str) -> Iterator[str]:
    """Every `./inv ...`, to the end of its shell command."""
    for block in _FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.findall(r"\./inv [^&|;>]*", line)
    yield from _INLINE.findall(_FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """GitHub's names for the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_can_be_parsed(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands(path.read_text()):
        assert exit_code(command) == 0, (command, capsys.readouterr().err)


def test_commands_are_found_in_blocks_and_in_lines() -> None:
    text = "a `./inv plan x` b\n```sh\n./inv ship \\\n  --json | jq\n```\n\n    ./inv build && x\n"
    assert [command.split() for command in commands(text)] == [
        ["./inv", "ship", "--json"],
        ["./inv", "build"],
        ["./inv", "plan", "x"],
    ]
    assert sum(len(list(commands(path.read_text()))) for path in DOCUMENTS) > 40


def prose(text: str) -> Iterator[str]:
    """Lines that an editor can break: no code, no table, no link that is longer by itself."""
    for line in _FENCED.sub("", text).splitlines():
        if not line.startswith("|") and len(max(line.split(), key=len, default="")) < 80:
            yield line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short_enough_for_a_diff(path: Path) -> None:
    assert [line for line in prose(path.read_text()) if len(line) > 120] == []


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, anchor in _LINK.findall(path.read_text()):
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), f"{target}#{anchor}"
