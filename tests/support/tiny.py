"""A root file system of a few megabytes, made of this machine's own binaries."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from shutil import which

PROGRAMS = ("sh", "cat", "sleep", "ls", "mkdir", "env", "id", "chmod", "dd", "true", "false", "rm")
FOLDERS = ("tmp", "mnt", "proc", "sys", "dev", "run", "etc", "usr/local/bin", "opt")


def _libraries(program: Path) -> set[Path]:
    listed = subprocess.run(
        ["ldd", str(program)], check=True, capture_output=True, text=True
    ).stdout
    return {Path(match) for match in re.findall(r"(/\S+)", listed)}


def rootfs_tar(*, whole: bool = False, links: Mapping[str, str] | None = None) -> bytes:
    """The tar, with /bin, the libraries those programs need, and the usual folders.

    `whole`: every folder has an entry, as in what engines build, and not those of FOLDERS alone.
    `links`: path -> target, in the place of a folder.
    """
    files: dict[str, Path] = {}
    for name in PROGRAMS:
        found = which(name)
        assert found, f"this machine has no {name}"
        program = Path(found).resolve()
        files[f"bin/{name}"] = program
        for library in _libraries(program):
            files[str(library).lstrip("/")] = library.resolve()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        named = [*files, *FOLDERS]
        above = {str(parent) for name in named for parent in Path(name).parents} - {"."}
        links = links or {}
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for folder in sorted({*FOLDERS, *above} - {*links} if whole else {*FOLDERS} - {*links}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, source in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            data = source.read_bytes()
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
