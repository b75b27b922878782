"""Slipway turns a version matrix into tested, pushed, cluster-ready GPU training images."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

__version__ = "0.1.0"

_ROOM = 64 << 20  # bytes; all of Slipway compiled has a few million


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


def _keeps_bytecode_whole() -> bool:
    """Whether there is room for what Python compiles.

    Until 3.12.8 and 3.13.1 it took a write that came out short for a whole one: after a full disk
    each run ended with "marshal data too short" (python/cpython#126606).
    """
    longest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if longest != resource.RLIM_INFINITY and longest < _ROOM:
        return False
    try:
        about = os.statvfs(__path__[0])
    except OSError:
        return True
    return about.f_bavail * about.f_frsize >= _ROOM


if not _keeps_bytecode_whole():
    sys.dont_write_bytecode = True


def _begins_inv() -> bool:
    """Whether Python imports this on its way to `python -m slipway.tasks.cli`."""
    return sys.argv[:1] == ["-m"] and "slipway.tasks.cli" in sys.orig_argv


if _begins_inv() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the program handles it: Python's own answer to a Ctrl-C between imports is a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
