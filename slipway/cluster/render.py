"""A job -> the text of its script. Pure: the same values give the same text anywhere."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slipway.cluster.job import SlurmJob
from slipway.cluster.recipes import RecipeRun

TEMPLATES = Path(__file__).with_name("templates")

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def word(text: str) -> str:
    """`text` as one word of bash, on one line whatever is in it.

    sbatch refuses scripts with DOS line ends, and a person reads lines: control characters are
    written as escapes.
    """
    if not any(character < " " or character == "\x7f" for character in text):
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character < " " or character == "\x7f":
        return _ESCAPES.get(character, f"\\{ord(character):03o}")
    return _ESCAPES.get(character, character)


@functools.cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701 - shell scripts, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["word"] = word
    return environment


def sbatch(job: SlurmJob) -> str:
    """The sbatch file of a job."""
    return _environment().get_template("job.sbatch.j2").render(job=job)


def recipe(run: RecipeRun) -> str:
    """The script that hands a run to the HyperPod recipes' own launcher."""
    return _environment().get_template("recipe.sh.j2").render(run=run)
