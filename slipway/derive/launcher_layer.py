"""The launcher's layer: which files of entrypoints/ stand in an image, where, and with what mode.

What is copied and what the build id counts come from this one list, so they cannot differ. A
document is for people who read the checkout, and no program in the image opens it: it is not
copied, and a word in it rebuilds nothing. The same is true of a file that only scripts outside the
image read; such a file is named in `READ_OUTSIDE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slipway.core import Project, is_executable, sha256_file, tree_files

DOCUMENT_SUFFIXES = frozenset({".md", ".rst", ".adoc"})
"""Files for people; programs and the tables that they read have other suffixes."""

READ_OUTSIDE: frozenset[str] = frozenset()
"""Files below entrypoints/ that nothing in an image reads, by their path from there. A test holds
the modules of the launcher to it: one that no other imports either stands here or is a program."""

_HOME = "opt/entrypoints"
_SHIM = b'#!/bin/sh\nexec /opt/entrypoints/launch "$@"\n'
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The last of /etc/profile.d, after whatever else sets PATH there.
_PROFILE = b"""\
# The image's own programs in login shells, such as enroot's.
. /opt/entrypoints/image_path.sh
PATH=$(slipway_login_path)
export PATH
"""


@dataclass(frozen=True)
class LauncherFile:
    """One file of the layer: its path from the image's root, and where its bytes come from."""

    target: str
    source: Path | bytes
    mode: int

    @property
    def sha256(self) -> str:
        """Hex digest of the content."""
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        return sha256_file(self.source)


def launcher_files(project: Project, python: str) -> tuple[LauncherFile, ...]:
    """Every file of the layer, sorted by its path in the image, whose interpreter is `python`."""
    files = [
        LauncherFile(
            f"{_HOME}/{path.relative_to(project.launcher).as_posix()}",
            path,
            0o755 if is_executable(path) else 0o644,
        )
        for path in _without_documents(tree_files(project.launcher))
        if path.relative_to(project.launcher).as_posix() not in READ_OUTSIDE
    ]
    files.append(LauncherFile("usr/local/bin/launch", _SHIM, 0o755))
    files.append(LauncherFile("etc/profile.d/zz-slipway.sh", _PROFILE, 0o644))
    files.append(LauncherFile(f"{_HOME}/image.env", _recorded(python), 0o644))
    return tuple(sorted(files, key=lambda file: file.target))


def launcher_key(project: Project) -> str:
    """Hex digest over path, mode and content of the layer, whatever the interpreter is."""
    files = launcher_files(project, "")
    lines = [f"{file.target} {file.mode:o} {file.sha256}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _recorded(python: str) -> bytes:
    """What the image's ENV records as well, for a process whose environment has been emptied.

    The base's own PATH is known to ENV only; here it is the interpreter's folder and the usual.
    """
    path = f"{PurePosixPath(python).parent}:{_SYSTEM_PATH}"
    return f"SLIPWAY_PYTHON={python}\nSLIPWAY_PATH={path}\n".encode()


def _without_documents(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() not in DOCUMENT_SUFFIXES]
