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

from slipway.errors import UsageError
from slipway.matrix.uri import did_you_mean

if TYPE_CHECKING:
    from launcher.instances import Instance
    from launcher.option_table import Option


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


def instance(launcher: Path, instance_type: str) -> tuple[str, Instance]:
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


def family(launcher: Path, instance_type: str) -> str:
    """``ml.g5.48xlarge`` -> g5."""
    table = _module(launcher / "launcher" / "instances.py")
    name: str = table.instance_family(instance_type)
    return name


def option(launcher: Path, name: str) -> Option:
    """An option of `launch`. Raises UsageError that names the nearest."""
    options: Sequence[Option] = _module(launcher / "launcher" / "option_table.py").OPTIONS
    for found in options:
        if found.name == name:
            return found
    raise UsageError(
        f"the launcher has no option {name!r}{did_you_mean(name, [o.name for o in options])}",
        cure="`launch help` lists them; they are in entrypoints/launcher/option_table.py.",
    )


def check(option: Option, value: str) -> None:
    """Raise UsageError for a value that the launcher would refuse once the job has begun."""
    if option.choices and value not in option.choices:
        raise UsageError(f"--launch {option.name}={value}: one of {', '.join(option.choices)}")
    if option.number and not (value.isascii() and value.isdecimal()):
        raise UsageError(f"--launch {option.name}={value}: expected a whole number")
