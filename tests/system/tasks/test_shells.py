"""Completion in zsh and fish themselves, from the scripts that `inv` prints for them."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slipway.tasks.completion import SCRIPTS

ROOT = Path(__file__).parents[3]
CASES = [
    ("./inv shi", "ship"),
    ("./inv storage.re", "storage.restore"),
    ("./inv ship --unl", "--unlocked"),
    ("./inv ship local-ds0.19.8 --json local-hyp", "local-hyperpod-ds0.19.8"),
    ("./inv ship --output fold", "folder/"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an `inv` that is this checkout's command line, and with a folder."""
    words = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT)]
    program = tmp_path / "inv"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n'
    )
    program.chmod(0o755)
    (tmp_path / "folder").mkdir()
    for shell, script in SCRIPTS.items():
        (tmp_path / f"completion.{shell}").write_text(script)
    return tmp_path


@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_fish_completes(line: str, wanted: str, place: Path) -> None:
    code = f"source completion.fish; complete --do-complete {shlex.quote(line)}"
    environment = {**os.environ, "HOME": str(place)}
    ended = subprocess.run(
        ["fish", "--no-config", "-c", code],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [answer.split("\t")[0] for answer in ended.stdout.splitlines()] == [wanted]


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows, up to `wanted` or for half a minute."""
    shown, end = b"", time.monotonic() + 30
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096)
    return shown


@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_zsh_completes(line: str, wanted: str, place: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "HOME": str(place)})
    try:
        setup = "autoload -U compinit; compinit -u -D; source completion.zsh; PS1='rea''dy> '\n"
        os.write(terminal, setup.encode())
        assert b"ready> " in read_until(terminal, b"ready> ")
        os.write(terminal, f"{line}\t".encode())
        expected = f"{line.rpartition(' ')[0]} {wanted}".encode()
        assert expected in read_until(terminal, expected)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
