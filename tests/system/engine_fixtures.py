"""A root file system small enough to import in a moment: a few host programs with their libraries."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

PROGRAMS = (
    *("sh", "cat", "ls", "sleep", "dd", "mkdir", "true", "false", "echo", "env", "id", "rm"),
    *("sha256sum", "head", "touch", "printf", "seq"),
)


def tiny_rootfs() -> bytes:
    """A tar of PROGRAMS under /bin and the shared libraries that they load."""
    members: dict[str, Path] = {}
    for program in PROGRAMS:
        found = shutil.which(program)
        assert found, f"{program} is not on this machine"
        members[f"bin/{program}"] = Path(found).resolve()
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+)", linked):
            members[library.lstrip("/")] = Path(library).resolve()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("tmp", "etc", "proc", "sys", "dev", "root"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        for name, source in sorted(members.items()):
            _add(tar, name, source.read_bytes(), 0o755)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))
