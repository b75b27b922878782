"""What makes a function a task: its flags, its help texts, and how its failures end.

A namespace imports rooms as modules (`from slipway import pipeline`) and names what it uses in the
bodies of its tasks: a room's modules load with the first use of their names, so that `--list`, help
and completion load none of them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from slipway.core import (
    FAILED,
    OutputError,
    SlipwayError,
    interrupt_behind,
    interrupt_exit_code,
    machine_limit,
)

ROOT = Path(__file__).parents[2]
IMAGE_NAMES = {
    "names": "image names or globs, e.g. 'pytorch-2.1*-sagemaker-*'; given as plain words"
}
JSON = {"json": "machine-readable on stdout; text for people goes to stderr"}
JOB_SOURCE = {
    "job": "a job with the launcher's events: its log FILE, slurm:NUMBER, sagemaker:NAME, or "
    "cloudwatch:GROUP[:STREAMS]",
    "ssh": "the head node of slurm:NUMBER (default: this machine)",
    "region": "AWS region of a job that is asked for there (default: slipway.region)",
}
REGION = {"region": "AWS region to take bases from and push to (default: the public mirror)"}
BUILD = {
    **REGION,
    "jobs": "builds at a time",
    "unlocked": "build also on bases that no lock pins",
}
NO_ENGINE = {
    "no_engine": "without an engine, and without pulling the base: docs/registry.md",
    "base_from": "with --no-engine: where the base is, in place of its own registry:"
    " registry://HOST/REPOSITORY:TAG or oci:FOLDER",
}
TARGET = {"target": "registry to push to: local or ecr"}
SOCI = {"soci": "also put TAG-soci, which jobs start before all is fetched: docs/registry.md"}
SQSH = {
    "output": "folder for the .sqsh",
    "compression": "of the .sqsh: zstd-1 (default), zstd-LEVEL, gzip, lzo, lz4, xz or none",
    "force": "overwrite a .sqsh of another build, or of other options",
}

NAMES = "names"
SHORT_FLAGS = {"jobs": "j", "output": "o", "yes": "y"}
"""All short flags that there are (beside invoke's own, and pytest's -k): each the same everywhere,
and none is one of invoke's."""


class DocumentedTask(Task[Callable[..., None]]):
    """A task that keeps its help, with Slipway's short flags, and knows what names images.

    invoke gives each help text to the first parser made of the task only, and hands out short flags
    by the first free letter, so that one letter would mean a different thing at each task.
    """

    image_argument = ""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with their texts and short flags."""
        texts = dict(self.help)
        try:
            arguments = super().get_arguments(ignore_unknown_help=ignore_unknown_help)
        finally:
            self.help = texts
        for argument in arguments:
            if short := SHORT_FLAGS.get(argument.names[0]):
                argument.names = (argument.names[0], short)
        return arguments


def task_command(
    *, repeatable: Sequence[str] = (), images: str = "", **options: Any
) -> Callable[[Callable[..., None]], Any]:
    """`invoke.task`, with expected failures turned into one paragraph and an exit code.

    `repeatable` names the arguments that may be given several times, `images` the one that takes
    image names (for the completion of a shell).
    """

    def decorate(body: Callable[..., None]) -> Any:
        name = body.__name__.replace("_", ".")

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                body(*args, **kwargs)
            except OutputError:
                raise  # nowhere to tell it: see slipway.tasks.cli
            except SlipwayError as error:
                raise Exit(f"inv {name}: {error}", error.exit_code) from error
            except (OSError, MemoryError, RuntimeError) as error:
                if interrupt := interrupt_behind(error):
                    raise _interrupted(interrupt) from error
                if isinstance(error, BrokenPipeError):
                    drop_output()
                    raise Exit(code=FAILED) from error
                limit = machine_limit(error)
                if limit is None:
                    raise
                raise Exit(f"inv {name}: {limit}", limit.exit_code) from error
            except KeyboardInterrupt as interrupt:
                raise _interrupted(interrupt) from interrupt

        names = [NAMES] if NAMES in body.__annotations__ else []
        wrapped = invoke_task(
            klass=DocumentedTask,
            iterable=[*names, *repeatable],
            auto_shortflags=False,
            **options,
        )(run)
        wrapped.image_argument = images
        return wrapped

    return decorate


def _interrupted(interrupt: KeyboardInterrupt) -> Exit:
    text = "interrupted: what was whole is kept; run it again to go on"
    return Exit(text, interrupt_exit_code(interrupt))


def drop_output(stream: TextIO | None = None) -> None:
    """Send nowhere what is still to be printed (to stdout): the reader has what it wanted.

    Python would complain again when it flushes stdout at exit
    (docs.python.org/3/library/signal.html, SIGPIPE).
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def after_dashes(argv: Sequence[str]) -> list[str]:
    """The words after the first ``--``, as they were given.

    invoke has them, too (`Context.remainder`), but joined by blanks into one string.
    """
    words = list(argv)
    return words[words.index("--") + 1 :] if "--" in words else []
