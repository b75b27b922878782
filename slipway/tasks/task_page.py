"""docs/tasks.md: every task with its arguments, from the tasks' own help."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from invoke.collection import Collection
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

_HEAD = """# Tasks

Written by `./inv generate` from the tasks' own help, which `./inv --help ship` prints for one.
NAMES are plain words.
"""


def task_page(tasks: Collection) -> str:
    """The page: tasks in the order of their names, those without a namespace first."""
    contexts = sorted(tasks.to_contexts(), key=lambda context: (_family(context), context.name))
    return "\n".join([_HEAD, *(_section(tasks, context) for context in contexts)])


def _family(context: ParserContext) -> str:
    return str(context.name).rpartition(".")[0]


def _section(tasks: Collection, context: ParserContext) -> str:
    name = str(context.name)
    aliases = sorted(str(alias) for alias in context.aliases)
    also = f" Also: {', '.join(f'`./inv {alias}`' for alias in aliases)}." if aliases else ""
    text = " ".join((tasks[name].__doc__ or "").split())
    rows = [_row(context, argument) for argument in _unique(context.args.values())]
    table = ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []
    lines = textwrap.wrap(f"{text}{also}", 118, break_on_hyphens=False)
    return "\n".join([f"## {name}", "", *lines, "", *table])


def _unique(arguments: Iterable[Argument]) -> list[Argument]:
    return list({id(argument): argument for argument in arguments}.values())


def _row(context: ParserContext, argument: Argument) -> str:
    flags = [flag for flag, taken in context.flags.items() if taken is argument]
    flags += [flag for flag in (f"-{name}" for name in argument.names) if flag in context.flags]
    names = sorted({f"`{flag}`" for flag in flags}, key=lambda flag: (-len(flag), flag))
    shown = "NAMES" if argument.name == "names" else ", ".join(names)
    meaning = (argument.help or "").replace("|", r"\|")
    return f"| {shown} | {meaning} |"
