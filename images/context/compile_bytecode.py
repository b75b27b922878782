"""Runs in a build: leaves bytecode beside the modules of one add-on's packages.

    PYTHON compile_bytecode.py ADDON

Beside this file: ADDON.txt, the add-on's pins. Each module in site-packages of a distribution that
they name gets bytecode where it has none; so does one of the base, which is otherwise left as it
is. RECORD stays as the wheel's installation has left it: bytecode need not be listed (PyPA
specifications, "Recording installed projects"), and pip removes it with its module. Programs beside
site-packages get none: nobody imports them. Stdlib only, Python 3.9 and newer.

The same packages and the same Python give the same bytes:

- A module's source is named by its hash and not by its time (PEP 552), and the
  hash is not looked at when the module is imported.
- What marshal writes of a name depends in older Pythons on who else in the process has it, so each
  module is compiled by a process of its own, forked off one that has compiled nothing.
- Hashes of strings are fixed, by which sets are ordered in Pythons before 3.11. A set with None in
  it may differ there all the same: None is hashed by its address.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_SEED = "PYTHONHASHSEED"


def read_names(text: str) -> list[str]:
    """The distributions that a requirement file pins."""
    return re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", text, re.MULTILINE)


def modules_of(distribution: metadata.Distribution) -> Iterator[Path]:
    """Its modules in site-packages that have no bytecode."""
    for listed in distribution.files or ():
        if listed.suffix != ".py" or listed.is_absolute() or ".." in listed.parts:
            continue
        module = Path(str(distribution.locate_file(listed)))
        if module.is_file() and not bytecode_of(module).exists():
            yield module


def bytecode_of(module: Path) -> Path:
    """Where this Python looks for it."""
    return Path(importlib.util.cache_from_source(str(module), optimization=""))


def compile_module(module: Path) -> int:
    """Write the bytecode of one module; 1 where it is no Python, as templates in packages are."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(
            str(module),
            str(bytecode_of(module)),
            doraise=True,
            optimize=0,
            invalidation_mode=unchecked,
        )
    except (py_compile.PyCompileError, RecursionError, UnicodeError):
        return 1
    return 0


def compile_apart(modules: list[Path]) -> list[Path]:
    """Compile each in a process of its own, as many at once as there are cores; gives those that
    are no Python. Raises SystemExit where something else went wrong, as with a full disk."""
    running: dict[int, Path] = {}
    refused: list[Path] = []

    def wait_for_one() -> None:
        child, status = os.wait()
        module = running.pop(child)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 1):
            raise SystemExit(f"compiling {module} ended with {code}")
        if code == 1:
            refused.append(module)

    for module in modules:
        while len(running) >= (os.cpu_count() or 1):
            wait_for_one()
        child = os.fork()
        if child == 0:
            code = 2
            try:
                code = compile_module(module)
            except OSError as error:
                os.write(2, f"{module}: {error}\n".encode())
            finally:
                os._exit(code)
        running[child] = module
    while running:
        wait_for_one()
    return sorted(refused)


def main() -> None:
    """Compile, report."""
    addon = sys.argv[1]
    text = Path(__file__).resolve().with_name(f"{addon}.txt").read_text(encoding="utf-8")
    distributions = [metadata.distribution(name) for name in read_names(text)]
    modules = sorted({module for each in distributions for module in modules_of(each)})
    os.umask(0o022)
    refused = compile_apart(modules)
    for module in refused:
        print(f"no bytecode of {module}: it is no module of this Python")
    print(f"bytecode of {len(modules) - len(refused)} modules of {addon}", flush=True)


if __name__ == "__main__":
    if os.environ.get(_SEED) == "0":
        main()
    else:  # once more, with nothing of the caller's that says how Python works
        clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        command = [sys.executable, "-s", "-B", "-W", "ignore", *sys.argv]
        os.execve(sys.executable, command, {**clean, _SEED: "0"})  # noqa: S606 - no shell is meant
