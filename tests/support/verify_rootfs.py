"""This machine's Python as a root file system, and stand-ins for installed distributions."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

PROGRAMS = (
    *(
        "bash",
        "cat",
        "cut",
        "dirname",
        "env",
        "false",
        "head",
        "id",
        "ls",
        "mkdir",
        "readlink",
        "rm",
    ),
    *("sed", "sh", "sha256sum", "sleep", "sort", "stat", "test", "true", "uname"),
)
INTERPRETER = Path(sys.executable).resolve()
SITE = f"/opt/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
NOT_NEEDED = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("ensurepip", "lib2to3", "pydoc_data"),
}


@dataclass(frozen=True)
class Package:
    """A stand-in for a distribution. `code` is the module's, `scripts` go to /opt/venv/bin."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    code: str = ""
    scripts: Mapping[str, str] | None = None

    def files(self) -> dict[str, bytes]:
        """As a wheel's files lie after their installation, with a RECORD."""
        module = self.name.replace("-", "_")
        info = f"{SITE}/{module}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in self.requires)
        files = {
            f"{SITE}/{module}/__init__.py": self.code.encode(),
            f"{info}/METADATA": metadata.encode(),
            **{f"/opt/venv/bin/{n}": text.encode() for n, text in (self.scripts or {}).items()},
        }
        rows = [f"{module}-{self.version}.dist-info/RECORD,,"]
        for path, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            relative = path.replace(SITE + "/", "").replace("/opt/venv/", "../../../")
            rows.append(f"{relative},sha256={digest},{len(data)}")
        return {**files, f"{info}/RECORD": "\n".join(rows).encode()}


def _libraries(files: Sequence[Path]) -> set[Path]:
    shown = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return {Path(match) for match in re.findall(r"(/\S+\.so\S*)(?= \(| =>|$)", shown.stdout)}


def python_files() -> dict[str, Path]:
    """Path in the image -> file of this machine: shell, tools, Python and its standard library."""
    found = {f"bin/{name}": Path(which(name) or name).resolve() for name in PROGRAMS}
    found[str(INTERPRETER).lstrip("/")] = INTERPRETER
    extensions = []
    for key in ("stdlib", "platstdlib"):
        top = Path(sysconfig.get_path(key, vars={"base": sys.base_prefix})).resolve()
        for path in top.rglob("*"):
            parts = path.relative_to(top).parts
            skipped = NOT_NEEDED & set(parts) or parts[0].startswith("config-")
            if not skipped and path.is_file():
                found[str(path).lstrip("/")] = path
                extensions += [path] if path.suffix == ".so" else []
    for library in _libraries([*found.values()][: len(PROGRAMS) + 1] + extensions):
        found[str(library).lstrip("/")] = library.resolve()
    return found


def tar_of(files: Mapping[str, bytes | Path], links: Mapping[str, str] | None = None) -> bytes:
    """A tar whose files may all be executed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in sorted(files.items()):
            data = content.read_bytes() if isinstance(content, Path) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), 0o755, 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()
