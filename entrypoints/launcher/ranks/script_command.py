"""What stands after `--`: a script, a module, or a whole command in which one of them is found.

The launcher starts interpreters and runners itself. A command that names them all the same is taken
for what it means where that is certain (`python -u x.py`, `bash x.sh`), and else answered with the
line to write instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from launcher.causes import LaunchUsageError

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_SHELLS = frozenset({"sh", "bash"})
#: Programs that start ranks, with the words of theirs that come before their options.
_RUNNERS: dict[str, tuple[str, ...]] = {
    "torchrun": (),
    "torch.distributed.run": (),
    "torch.distributed.launch": (),
    "deepspeed": (),
    "deepspeed.launcher.runner": (),
    "accelerate": ("launch",),
    "accelerate.commands.launch": (),
    "mpirun": (),
    "mpiexec": (),
    "horovodrun": (),
    "srun": (),
}
#: What the job's Python does anyway: ranks' output is not buffered.
_HARMLESS = frozenset({"-u"})
_COUNTS = re.compile(r"--(?:nproc[_-]per[_-]node|num_gpus|num_processes)(?:=(?P<count>\w+))?")


@dataclass(frozen=True)
class ScriptCommand:
    """What ranks run. `module`: `script` is a module's name; `python`: the one that was named."""

    script: str
    args: tuple[str, ...] = ()
    module: bool = False
    python: str = ""


def read_script_command(words: Sequence[str], exists: Callable[[str], bool]) -> ScriptCommand:
    """Make out what is to run; `exists` says whether a word is a file there.

    LaunchUsageError with the line to write, for a command that the launcher itself replaces.
    """
    if not words:
        return ScriptCommand("")
    first, rest = words[0], list(words[1:])
    if first == "-m":
        return _module(rest, "")
    if exists(first) and "/" not in first:
        return ScriptCommand(first, tuple(rest))
    name = PurePath(first).name
    if name in _RUNNERS:
        raise _instead(first, rest)
    if _PYTHON.fullmatch(name):
        return _python(first if first.startswith("/") else "", rest)
    if name in _SHELLS:
        return _shell(first, rest)
    if first.startswith("-"):
        raise LaunchUsageError(
            f"after -- comes the script, and {first!r} is an option. The launcher's options go "
            "before the --: launch local --nproc 2 -- train.py --epochs 3"
        )
    return ScriptCommand(first, tuple(rest))


def _module(words: list[str], python: str) -> ScriptCommand:
    if not words:
        raise LaunchUsageError("-m needs a module: launch local -- -m package.train --epochs 3")
    if words[0] in _RUNNERS:
        raise _instead(f"python -m {words[0]}", words[1:])
    return ScriptCommand(words[0], tuple(words[1:]), module=True, python=python)


def _python(python: str, words: list[str]) -> ScriptCommand:
    while words and words[0] in _HARMLESS:
        words.pop(0)
    if words and words[0] == "-m":
        return _module(words[1:], python)
    if words and words[0] == "--":
        words.pop(0)
    elif words and words[0].startswith("-"):
        raise LaunchUsageError(
            f"the launcher starts Python itself, and its option {words[0]!r} is lost on the way: "
            "write the script alone after --, and set Python's own variables (PYTHONOPTIMIZE, "
            "PYTHONWARNINGS, ...) in the environment"
        )
    if not words:
        raise LaunchUsageError("python needs a script: launch local -- train.py --epochs 3")
    return ScriptCommand(words[0], tuple(words[1:]), python=python)


def _shell(shell: str, words: list[str]) -> ScriptCommand:
    if not words or words[0].startswith("-") or not words[0].endswith(".sh"):
        raise LaunchUsageError(
            f"the launcher starts {shell} itself: write a script NAME.sh alone after --, with its "
            "options in it (set -e): launch local -- train.sh"
        )
    return ScriptCommand(words[0], tuple(words[1:]))


def _instead(program: str, words: Sequence[str]) -> LaunchUsageError:
    """The command to write, as far as it can be read from the one that was given."""
    found, options = _script_in(words)
    count = _count_in(options)
    nproc = f" --nproc {count}" if count else ""
    runner = " --runner deepspeed" if PurePath(program).name.startswith("deepspeed") else ""
    command = shlex.join(found) if found else "train.py ..."
    return LaunchUsageError(
        f"the launcher starts the ranks itself, {program} must not: write "
        f"`launch PLATFORM{runner}{nproc} -- {command}` (PLATFORM: sagemaker, slurm or local)"
    )


def _script_in(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the script or module with its arguments, what stands before it)."""
    for at, word in enumerate(words):
        if word in ("-m", "--module") and at + 1 < len(words):
            return ["-m", *words[at + 1 :]], list(words[:at])
        if word.endswith((".py", ".sh")) and not word.startswith("-"):
            return list(words[at:]), list(words[:at])
    return [], list(words)


def _count_in(options: Sequence[str]) -> str:
    for at, word in enumerate(options):
        match = _COUNTS.fullmatch(word)
        if match:
            count = match["count"] or (options[at + 1] if at + 1 < len(options) else "")
            return count if count.isdecimal() else ""
    return ""
