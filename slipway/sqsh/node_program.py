"""The program that fetches a .sqsh on a node: the launcher's own, as one zip or run from here.

A node has neither Slipway nor a container yet; what it has is Python 3.9 or newer.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from slipway.core import CredentialsFor, SlipwayError, UsageError, say

_PARTS = (
    "__init__.py",
    "causes.py",
    "events.py",
    "stop_request.py",
    "platforms/__init__.py",
    "platforms/hostlist.py",
    "platforms/topology.py",
    *(
        f"peers/{name}.py"
        for name in (
            *("__init__", "addresses", "gate", "gate_server", "gate_state"),
            *("peers", "secret", "wire"),
        )
    ),
    "fetch",
)
_MAIN = b"""\
import sys

from launcher.fetch.fetch_command import main

sys.exit(main(sys.argv[1:]))
"""
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip has no earlier time, and ours is in no archive
_LOGIN = "SLIPWAY_REGISTRY_LOGIN"
_USAGE = 64
_EVENT = "launch: {"


def fetch_program(launcher: Path) -> bytes:
    """A zip that `python3 FILE URI --to DIR` runs; `launcher` is the checkout's entrypoints/."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        _add(archive, "__main__.py", _MAIN)
        for path in _files(launcher / "launcher"):
            _add(archive, path.relative_to(launcher).as_posix(), path.read_bytes())
    return stream.getvalue()


def _files(folder: Path) -> list[Path]:
    files = []
    for part in _PARTS:
        path = folder / part
        files += sorted(path.glob("*.py")) if path.is_dir() else [path]
    return files


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def run_fetch_program(launcher: Path, words: Sequence[str], credentials: CredentialsFor) -> str:
    """Fetch on this machine, with this user's logins for registries; what the program prints.

    Raises UsageError and SlipwayError with the program's own words.
    """
    command = [sys.executable, "-I", "-S", str(launcher / "launcher"), "fetch", *words]
    environment = dict(os.environ)
    uri = next((word for word in words if word.startswith("registry://")), "")
    host = uri.removeprefix("registry://").partition("/")[0]
    login = credentials(host) if host else None
    if login is not None:
        environment[_LOGIN] = f"{host}={login.username}:{login.secret}"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        failure = ""
        for line in process.stderr:
            if line.startswith(_EVENT):
                say(line.rstrip())
            else:
                failure = line.rstrip().removeprefix("launch: ")
        output = process.stdout.read()
    if process.returncode:
        kind = UsageError if process.returncode == _USAGE else SlipwayError
        raise kind(failure.partition(": ")[2] or f"the fetch ended with {process.returncode}")
    return output
