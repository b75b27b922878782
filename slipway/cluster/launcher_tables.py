"""The launcher's own tables (instance types, options), read from its files: there is no second one.

The launcher never imports Slipway and is no package of it; its two modules with tables import the
standard library only, so that they can be loaded by their path.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from slipway.core import UsageError, did_you_mean

if TYPE_CHECKING:
    from launcher.instances import Instance
    from launcher.option_table import Option
from collections.abc import Mapping

from slipway.cluster import launcher_tables

UPLOAD_SECONDS = 15  # entrypoints/launcher/main_job.py: what follows the ranks' grace
SPARE_SECONDS = 30
#: Options of `launch local`, and what follows "--".
OF_THE_PLATFORM = frozenset({"hosts", "node-rank", "job", "script"})


@functools.cache
def _module(path: Path) -> ModuleType:
    name = f"slipway.cluster.launcher_tables.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses looks its module up there
    spec.loader.exec_module(module)
    return module


def find_instance_row(launcher: Path, instance_type: str) -> tuple[str, Instance]:
    """The SageMaker name of a type, "ml." before it, and its row.

    `launcher` is the checkout's entrypoints/. Raises UsageError that names the nearest type.
    """
    table = _module(launcher / "launcher" / "instances.py")
    name: str = table.short_type(instance_type)
    row: Instance | None = table.find_instance(name)
    if row is None:
        known = [f"ml.{known}" for known in table.INSTANCES]
        raise UsageError(
            f"no instance type ml.{name} is known{did_you_mean(f'ml.{name}', known)}",
            cure="Types are in entrypoints/launcher/instances.py, which the launcher reads, too.",
        )
    return f"ml.{name}", row


def instance_family(launcher: Path, instance_type: str) -> str:
    """``ml.g5.48xlarge`` -> g5."""
    table = _module(launcher / "launcher" / "instances.py")
    name: str = table.instance_family(instance_type)
    return name


def find_option(launcher: Path, name: str) -> Option:
    """An option of `launch`. Raises UsageError that names the nearest."""
    options: Sequence[Option] = _module(launcher / "launcher" / "option_table.py").OPTIONS
    for option in options:
        if option.name == name:
            return option
    raise UsageError(
        f"the launcher has no option {name!r}{did_you_mean(name, [o.name for o in options])}",
        cure="`launch help` lists them; they are in entrypoints/launcher/option_table.py.",
    )


def check_option(option: Option, value: str) -> None:
    """Raise UsageError for a value that the launcher would refuse once the job has begun."""
    if option.choices and value not in option.choices:
        raise UsageError(f"--launch {option.name}={value}: one of {', '.join(option.choices)}")
    if option.number and not (value.isascii() and value.isdecimal()):
        raise UsageError(f"--launch {option.name}={value}: expected a whole number")


def complete_options(
    texts: Sequence[str], instance_type: str, signal: int, launcher: Path
) -> dict[str, str | None]:
    """What the user gave as NAME=VALUE, and what follows from the job; None is a bare flag.

    `signal` are the seconds from the signal to the time limit. Raises UsageError.
    """
    longest = signal - UPLOAD_SECONDS - SPARE_SECONDS
    theirs = _given(texts, launcher)
    grace = theirs.get("grace")
    if grace is not None and int(grace) > longest:
        raise UsageError(
            f"--launch grace={grace}: with --signal {signal} ranks have at most {longest} s",
            cure=f"--signal {int(grace) + signal - longest} or more.",
        )
    return {"instance-type": instance_type, "grace": str(longest), **theirs}


def given_flags(texts: Sequence[str], launcher: Path, platform: str) -> tuple[str, ...]:
    """What the user gave as NAME=VALUE, as words of `launch`. Raises UsageError."""
    return option_flags(_given(texts, launcher, platform))


def option_flags(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """As words of `launch`."""
    return tuple(f"--{n}" if value is None else f"--{n}={value}" for n, value in options.items())


def _given(texts: Sequence[str], launcher: Path, platform: str = "Slurm") -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        option = launcher_tables.find_option(launcher, name)
        if name in OF_THE_PLATFORM:
            raise UsageError(f"--launch {name}: {platform} says that itself")
        if name == "spares" and platform == "Slurm":
            raise UsageError("--launch spares: the script has to know of it, too: --spares N")
        if name == "spares":
            raise UsageError(f"--launch spares: {platform} ends a job that has lost a node")
        if not equals and not option.flag:
            raise UsageError(f"--launch {text!r}: expected {name}=VALUE")
        launcher_tables.check_option(option, value)
        if option.many and name in values:
            value = f"{values[name]} {value}"
        values[name] = value if equals else None
    return values
