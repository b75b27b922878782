"""Every exception class that a library defines, and one of each."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import inspect
import pkgutil
import socket
import string
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from types import ModuleType

from botocore.exceptions import ClientError

BARE: tuple[type[Exception], ...] = (
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, AssertionError, RuntimeError),
    *(OSError, TimeoutError, ConnectionResetError, EOFError, RecursionError, UnicodeError),
    *(FileNotFoundError, PermissionError, BrokenPipeError, MemoryError, NotImplementedError),
    *(socket.gaierror, http.client.IncompleteRead, http.client.BadStatusLine, Exception),
    *(zlib.error, zipfile.BadZipFile, UnicodeDecodeError, UnicodeEncodeError, StopIteration),
)
"""What libraries let out that is not theirs."""


def every_class(*libraries: str) -> list[type[Exception]]:
    """All exception classes that the modules of these packages define, and the bare ones."""
    found = {kind for library in libraries for kind in _classes(library)}
    return sorted({*found, *BARE}, key=class_name)


def class_name(kind: type[Exception]) -> str:
    """For the id of a test."""
    return f"{kind.__module__}.{kind.__name__}"


def _classes(library: str) -> Iterator[type[Exception]]:
    for module in _modules(library):
        for value in vars(module).values():
            error = inspect.isclass(value) and issubclass(value, Exception)
            own = error and str(value.__module__).startswith(library)
            if own and not issubclass(value, Warning):
                yield value


def _modules(library: str) -> Iterator[ModuleType]:
    package = importlib.import_module(library)
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{library}."):
        # Parts for other systems and optional parts cannot be imported here; a setup.py sets up.
        if not found.name.endswith((".setup", ".__main__")):
            module = _optional(found.name)
            if module is not None:
                yield module


def _optional(name: str) -> ModuleType | None:
    with warnings.catch_warnings(), contextlib.suppress(ImportError, AttributeError):
        warnings.simplefilter("ignore")  # urllib3 warns of what it lacks before it fails by it
        return importlib.import_module(name)
    return None


def instance(kind: type[Exception]) -> Exception:
    """One of the class, whatever its constructor wants."""
    if kind is UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    if kind is UnicodeEncodeError:
        return UnicodeEncodeError("ascii", "\xff", 0, 1, "ordinal not in range")
    if issubclass(kind, ClientError):
        return kind({"Error": {"Code": "Boom", "Message": "boom"}}, "Boom")
    words = string.Formatter().parse(getattr(kind, "fmt", ""))  # botocore's way
    with contextlib.suppress(Exception):
        return kind(**{name: "boom" for _, name, _, _ in words if name})
    for count in range(7):
        with contextlib.suppress(Exception):
            return kind(*["boom"] * count)
    made = kind.__new__(kind)
    Exception.__init__(made, "boom")
    return made
