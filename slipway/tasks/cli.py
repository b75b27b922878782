"""The command line: invoke, with image names as positional arguments and our exit codes.

Run as ``python -m slipway.tasks.cli`` by ``./inv``.
Plain ``invoke`` works as well, with ``--names``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from invoke.config import Config
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.program import Program
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from slipway import __version__
from slipway.core import (
    FAILED,
    INTERRUPTED,
    TERMINATED,
    USAGE,
    SlipwayError,
    Terminated,
    handle_signals,
)

ROOT = Path(__file__).parents[2]
IMAGE_NAMES = {
    "names": "image names or globs, e.g. 'pytorch-2.1*-sagemaker-*'; given as plain words"
}
JSON = {"json": "machine-readable on stdout; text for people goes to stderr"}
REGION = {"region": "AWS region to take bases from and push to (default: the public mirror)"}
BUILD = {
    **REGION,
    "jobs": "builds at a time",
    "unlocked": "build also on bases that no lock pins",
}
TARGET = {"target": "registry to push to: local or ecr"}
SQSH = {
    "output": "folder for the .sqsh",
    "compression": "of the .sqsh: zstd-1 (default), zstd-LEVEL, gzip, lzo, lz4, xz or none",
    "force": "overwrite a .sqsh of another build, or of other options",
}

NAMES = "names"
#: Tasks whose words after ``--`` are another program's, with an example of them.
HANDS_ON = {"slurm.script": "train.py --epochs 3"}


def positional_names(tokens: list[str], contexts: Any) -> list[str]:
    """Rewrite bare words after a task into ``--names WORD`` where that task takes image names.

    invoke's own positional arguments are always required and single (pyinvoke/invoke#159); image
    names are optional and many. A word that is a task's name starts that task.
    """
    result: list[str] = []
    flags: Any = {}
    takes_names = wants_value = False
    for token in tokens:
        if wants_value:
            wants_value = False
        elif token in contexts:
            flags = contexts[token].flags
            takes_names = f"--{NAMES}" in flags
        elif token.startswith("-"):
            name, has_value, _ = token.partition("=")
            wants_value = name in flags and flags[name].takes_value and not has_value
        elif takes_names:
            result.append(f"--{NAMES}")
        result.append(token)
    return result


def _cure(error: ParseError) -> str:
    task = error.context.name if error.context else None
    if task in HANDS_ON:
        example = f"... -- {HANDS_ON[task]}"
        return f"See `./inv --help {task}`. A script and its arguments go after --: {example}"
    return "See `./inv --list`."


class InvConfig(Config):
    """invoke's configuration, where a variable that it cannot read is wrong usage."""

    def load_shell_env(self) -> None:
        """Take over INVOKE_* variables; one that should be a number and is not exits with 3."""
        try:
            super().load_shell_env()
        except ValueError as error:
            names = ", ".join(sorted(name for name in os.environ if name.startswith("INVOKE_")))
            raise Exit(f"inv: {error}\n  Correct it: one of {names}.", USAGE) from error


class InvProgram(Program):
    """invoke's program with Slipway's usage conventions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(config_class=InvConfig, **options)

    def parse_tasks(self) -> None:
        """Parse tasks and their arguments; a parse error exits with the usage code."""
        contexts = self._make_parser().contexts
        self.core.unparsed = positional_names(self.core.unparsed, contexts)
        try:
            super().parse_tasks()
        except ParseError as error:
            raise Exit(f"inv: {error}\n  {_cure(error)}", USAGE) from error

    def parse_cleanup(self) -> None:
        """Answer --help and --list; help for what is no task exits with the usage code."""
        try:
            super().parse_cleanup()
        except ParseError as error:
            raise Exit(f"inv: {error}\n  {_cure(error)}", USAGE) from error

    def no_tasks_given(self) -> None:
        """Show the tasks, which say more than invoke's own options do."""
        self.list_tasks()
        print("./inv --help TASK explains one. README.md begins with ./inv ship.")
        raise Exit

    def parse_core_args(self) -> None:
        """Parse invoke's own arguments; a parse error exits with the usage code."""
        try:
            super().parse_core_args()
        except ParseError as error:
            raise Exit(f"inv: {error}\n  See `./inv --help`.", USAGE) from error


class DocumentedTask(Task[Callable[..., None]]):
    """A task that keeps its help: invoke's own gives each text to the first parser made of it."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with their texts."""
        texts = dict(self.help)
        try:
            return super().get_arguments(ignore_unknown_help=ignore_unknown_help)
        finally:
            self.help = texts


def task_command(
    *, repeatable: Sequence[str] = (), **options: Any
) -> Callable[[Callable[..., None]], Any]:
    """`invoke.task`, with expected failures turned into one paragraph and an exit code.

    `repeatable` names the arguments that may be given several times.
    """

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                body(*args, **kwargs)
            except SlipwayError as error:
                task = body.__name__.replace("_", ".")
                raise Exit(f"inv {task}: {error}", error.exit_code) from error
            except KeyboardInterrupt as interrupt:
                text = "interrupted: nothing half-made was kept"
                raise Exit(text, _exit_code(interrupt)) from interrupt
            except BrokenPipeError as closed:
                # `inv matrix | head`: the reader has what it wanted. Python would complain again
                # when it flushes stdout at exit (docs.python.org/3/library/signal.html, SIGPIPE).
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise Exit(code=FAILED) from closed

        names = [NAMES] if NAMES in body.__annotations__ else []
        return invoke_task(klass=DocumentedTask, iterable=[*names, *repeatable], **options)(run)

    return decorate


def after_dashes(argv: Sequence[str]) -> list[str]:
    """The words after the first ``--``, as they were given.

    invoke has them, too (`Context.remainder`), but joined by blanks into one string.
    """
    words = list(argv)
    return words[words.index("--") + 1 :] if "--" in words else []


def main() -> None:
    """Entry point of ``./inv``."""
    handle_signals()
    try:
        InvProgram(name="Slipway", binary="inv", version=__version__).run(sys.argv)
    except SystemExit as end:
        # Before a task has begun, invoke itself ends with 1.
        if isinstance(end.__context__, KeyboardInterrupt):
            sys.exit(_exit_code(end.__context__))
        raise


def _exit_code(interrupt: KeyboardInterrupt) -> int:
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


if __name__ == "__main__":
    main()
