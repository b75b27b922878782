"""The command line: invoke, with image names as positional arguments and our exit codes.

Run as ``python -m slipway.tasks.cli`` by ``./inv``.
Plain ``invoke`` works as well, with ``--names``.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from invoke.config import AmbiguousMergeError, Config
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser, ParseResult
from invoke.program import Program

from slipway import __version__
from slipway.core import (
    FAILED,
    USAGE,
    OutputError,
    RedactingStream,
    did_you_mean,
    error_text,
    handle_signals,
    interrupt_exit_code,
    reset_signals,
    say,
)
from slipway.tasks.commands import NAMES, ROOT, after_dashes, drop_output
from slipway.tasks.completion import SCRIPTS, TaskWords, complete_words, list_image_names

#: Tasks whose words after ``--`` are another program's, with an example of them.
HANDS_ON = dict.fromkeys(("slurm.script", "slurm.submit", "sagemaker.job"), "train.py --epochs 3")
_HELP = ("--help", "-h")


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


def task_to_explain(tokens: list[str], contexts: Any) -> str | None:
    """The task that `--help` or `-h` among its words asks about.

    invoke takes the word for the value of a required argument ("no image '--help'").
    """
    task: str | None = None
    flags: Any = {}
    wants_value = False
    for token in tokens:
        if wants_value:
            wants_value = False
        elif token in contexts:
            task, flags = token, contexts[token].flags
        elif task and token in _HELP and token not in flags:
            return task
        elif token.startswith("-"):
            name, has_value, _ = token.partition("=")
            wants_value = name in flags and flags[name].takes_value and not has_value
    return None


def suggest_word(text: str, known_words: Iterable[str]) -> str:
    """For invoke's "No idea what 'shp' is!": ` (did you mean ship?)`, or the tasks of a family."""
    unknown = re.fullmatch(r"No idea what '(.*)' is!", text)
    if unknown is None:
        return ""
    word, known = unknown[1], sorted(known_words)
    if family := [name for name in known if name.startswith(f"{word}.")]:
        return f" (there are {', '.join(family)})"
    return did_you_mean(word, known)


class InvConfig(Config):
    """invoke's configuration, where a variable that it cannot read is wrong usage."""

    def load_shell_env(self) -> None:
        """Take over INVOKE_* variables; one that should be a number and is not exits with 3."""
        try:
            super().load_shell_env()
        except ValueError as error:
            names = ", ".join(sorted(name for name in os.environ if name.startswith("INVOKE_")))
            raise Exit(f"inv: {error}\n  Correct it: one of {names}.", USAGE) from error

    def _load_file(self, prefix: str, absolute: bool = False, merge: bool = True) -> None:
        """Read one of invoke's files; one that cannot be read, or is no mapping, exits with 3."""
        try:
            super()._load_file(prefix, absolute, merge)
            if not isinstance(getattr(self, f"_{prefix}"), Mapping):
                raise TypeError("it is no mapping of names to values")
        except Exception as error:
            path = getattr(self, f"_{prefix}_path", None) or f"{prefix} configuration"
            text = "; ".join(error_text(error).split("\n"))
            raise Exit(f"inv: {path}: {text}\n  Correct or remove the file.", USAGE) from error

    def merge(self) -> None:
        """Put all settings together; a section that is a plain value somewhere exits with 3."""
        try:
            super().merge()
        except AmbiguousMergeError as error:
            files = ("system", "user", "project", "runtime")
            paths = ", ".join(str(p) for f in files if (p := getattr(self, f"_{f}_path", None)))
            text = f"a setting is of two kinds: {error_text(error)}"
            raise Exit(f"inv: {text}\n  Correct it in {paths}.", USAGE) from error


class TaskParser(Parser):
    """invoke's parser, given those tasks that a command line can name.

    invoke copies all that it is given, deeply: of 70 tasks, a tenth of a second of each command.
    """

    def parse_argv(self, argv: list[str]) -> ParseResult:
        """As invoke does. A word that is no task's name is none, however many there are."""
        words = set(argv)
        named = [
            task
            for task in self.contexts.values()
            if not words.isdisjoint((task.name, *task.aliases))
        ]
        return Parser(named, self.initial, self.ignore_unknown).parse_argv(argv)


class InvProgram(Program):
    """invoke's program with Slipway's usage conventions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(config_class=InvConfig, **options)
        self._parser: Parser | None = None

    def _make_parser(self) -> Parser:
        """invoke's, made once of the signatures of all tasks: we ask for it, and invoke does."""
        if self._parser is None:
            parser = super()._make_parser()
            self._parser = TaskParser(
                parser.contexts.values(), parser.initial, parser.ignore_unknown
            )
        return self._parser

    def parse_core(self, argv: list[str] | None) -> None:
        """Parse invoke's own arguments, and answer those that need no task."""
        dont_write_bytecode = sys.dont_write_bytecode
        self.normalize_argv(argv)
        self.parse_core_args()
        if shell := self.args["print-completion-script"].value:
            if shell not in SCRIPTS:
                raise Exit(
                    f"inv: no completion for {shell!r}\n  Give one of {', '.join(SCRIPTS)}.", USAGE
                )
            print(SCRIPTS[shell], end="")
            raise Exit
        super().parse_core(argv)
        # invoke keeps Python from caching what it compiles, for the sake of tasks.py; here nearly
        # all modules are imported after it has said so, and would be compiled at each call.
        sys.dont_write_bytecode = dont_write_bytecode

    def parse_tasks(self) -> None:
        """Parse tasks and their arguments; a parse error exits with the usage code."""
        contexts = self._make_parser().contexts
        if self.args.complete.value:
            self._print_completion(contexts)
            raise Exit
        if task := task_to_explain(self.core.unparsed, contexts):
            self.core.unparsed = []
            self.args.help.set_value(task, cast=False)
        self.core.unparsed = positional_names(self.core.unparsed, contexts)
        try:
            super().parse_tasks()
        except ParseError as error:
            raise self._usage_error(error, contexts) from error

    def parse_cleanup(self) -> None:
        """Answer --help and --list; help for what is no task exits with the usage code."""
        try:
            super().parse_cleanup()
        except ParseError as error:
            raise self._usage_error(error, self.parser.contexts) from error

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

    def _usage_error(self, error: ParseError, contexts: Any) -> Exit:
        task = error.context.name if error.context else None
        flags = error.context.flags if error.context else {}
        near = suggest_word(str(error), [*contexts, *contexts.aliases, *flags])
        cure = f"See `./inv --help {task}`, or `./inv --list`." if task else "See `./inv --list`."
        if task in HANDS_ON:
            cure += f" A script and its arguments go after --: ... -- {HANDS_ON[task]}"
        return Exit(f"inv: {error}{near}\n  {cure}", USAGE)

    def _print_completion(self, contexts: Any) -> None:
        """For the shell: what the last word after `--` may become."""
        _program, *words = after_dashes(self.argv) or [""]
        tasks: dict[str, TaskWords] = {}
        for name in [*contexts, *contexts.aliases]:
            argument = getattr(self.collection[name], "image_argument", "")
            images = {"": 0, NAMES: None}.get(argument, 1)
            tasks[name] = TaskWords(contexts[name].flags, images)
        core_flags = self.initial_context.flags
        for word in complete_words(words, tasks, core_flags, list_image_names(ROOT)):
            print(word)


def open_standard_files() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed (`>&-`).

    Python has no stream there, and the next file that is opened would get its number: what a
    program prints would go into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def use_utf8() -> None:
    """Start this program anew in Python's UTF-8 mode, where the locale has another encoding.

    In Latin-1 (`LANG=en_US`) Python takes every path and file that names no encoding for something
    else than our files, the daemons and the registry do.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, words, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606 - ourselves


def main() -> None:
    """Entry point of ``./inv``."""
    use_utf8()
    try:
        _run_program()
    except KeyboardInterrupt as interrupt:  # before invoke has begun, or after it has ended
        sys.exit(interrupt_exit_code(interrupt))
    finally:
        # All memory goes at once: Python's last searches for cycles would take 60 ms.
        gc.freeze()


def _run_program() -> None:
    open_standard_files()  # first: any other file would take their numbers
    handle_signals()
    for stream in (sys.stdout, sys.stderr):
        # A path may have what the terminal's encoding, or any, does not.
        cast("TextIOWrapper", stream).reconfigure(errors="backslashreplace")
    # Whatever prints, a traceback too: nothing that is secret leaves.
    sys.stdout = cast("TextIO", RedactingStream(sys.stdout))
    sys.stderr = cast("TextIO", RedactingStream(sys.stderr))
    try:
        try:
            InvProgram(name="Slipway", binary="inv", version=__version__).run(sys.argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        sys.exit(FAILED)
    except OutputError as error:
        drop_output()
        with suppress(OutputError, BrokenPipeError):  # stderr itself may be what is full
            say(f"inv: {error}")
        sys.exit(FAILED)
    except SystemExit as end:
        # Before a task has begun, invoke itself ends with 1.
        if isinstance(end.__context__, KeyboardInterrupt):
            sys.exit(interrupt_exit_code(end.__context__))
        raise
    finally:
        # Python tries again at exit, and ends with 120 where it fails.
        try:
            sys.stderr.flush()
        except (OutputError, BrokenPipeError):
            drop_output(sys.stderr)


if __name__ == "__main__":
    try:
        main()
    finally:
        reset_signals()
