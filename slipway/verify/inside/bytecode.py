"""Prints, as JSON, modules of the named distributions whose bytecode is not theirs -> what it is.

Compared are programs, not bytes: whoever has written the bytecode, what it does is in the source.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import marshal
import sys
import warnings
from pathlib import Path

_HEADER = 16  # magic number, flags, and what says of which source it is (PEP 552)


def fault_of(module: Path) -> str:
    """What is wrong with the bytecode of a module, "" where nothing is."""
    try:
        program = compile(module.read_bytes(), str(module), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError):
        return ""  # no module of this Python: a template, say
    bytecode = Path(importlib.util.cache_from_source(str(module), optimization=""))
    if not bytecode.is_file():
        return "there is none"
    content = bytecode.read_bytes()
    if content[:4] != importlib.util.MAGIC_NUMBER:
        return "of another Python"
    try:
        same = marshal.loads(content[_HEADER:]) == program  # noqa: S302 - of the image looked at
    except (EOFError, ValueError, TypeError):
        return "not whole"
    return "" if same else "of another source"


faults = {}
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    try:
        listed = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        continue  # that is for the checks of packages to say
    for path in listed:
        located = Path(str(path.locate()))
        if path.suffix != ".py" or ".." in path.parts or not located.is_file():
            continue
        if fault := fault_of(located):
            faults[str(located)] = fault
json.dump(faults, sys.stdout)
