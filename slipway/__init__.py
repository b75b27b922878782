"""Slipway turns a version matrix into tested, pushed, cluster-ready GPU training images."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__version__ = "0.1.0"


def lazy_face(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A room's `__getattr__` (PEP 562): its modules are imported when one of their names is used.

    `modules`: module below `package` -> the names of it that other rooms may use, with blanks.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
