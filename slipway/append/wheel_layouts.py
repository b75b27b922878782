"""How wheels lie in an image, kept by all that decides it.

An image has some forty wheels, and its next variant one other: reading all archives anew would take
longer than making the layer that changes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.append import python_layout, wheel_files
from slipway.append.layer_files import LayerFile, WheelMember
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import InstalledWheel, install_wheel
from slipway.core import read_note, recall_sha256, write_note


@dataclass(frozen=True)
class WheelLayouts:
    """Wheels laid out for one interpreter, those of earlier runs from notes in `folder`."""

    layout: PythonLayout
    folder: Path

    def wheel(self, path: Path, name: str) -> InstalledWheel:
        """As `install_wheel`: the archive is read where there is no note of it."""
        digest = recall_sha256(path)
        counted = json.dumps([_rules(), digest, name, self.layout.interpreter, self.layout.python])
        note = self.folder / f"{hashlib.sha256(counted.encode()).hexdigest()}.json.gz"
        noted = read_note(note)
        if noted is not None:
            return _read(noted, path, name, digest)
        installed = install_wheel(path, name, self.layout)
        write_note(note, _noted(installed))
        return installed


@functools.cache
def _rules() -> str:
    """What lays a wheel out: its code. Another version of it makes its own notes."""
    digest = hashlib.sha256()
    for module in (python_layout, wheel_files):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def _noted(wheel: InstalledWheel) -> dict[str, Any]:
    members, written = [], []
    for file in wheel.files:
        if isinstance(file.source, WheelMember):
            members.append((file.path, file.mode, file.source.name, file.size))
        else:
            assert isinstance(file.source, bytes)
            written.append((file.path, file.mode, base64.b64encode(file.source).decode()))
    return {
        "version": wheel.version,
        "requires": wheel.requires,
        "size": wheel.size,
        "members": members,
        "written": written,
    }


def _read(noted: dict[str, Any], path: Path, name: str, digest: str) -> InstalledWheel:
    files = [
        LayerFile(place, WheelMember(path, member, digest), size, mode)
        for place, mode, member, size in noted["members"]
    ]
    for place, mode, encoded in noted["written"]:
        content = base64.b64decode(encoded, validate=True)
        files.append(LayerFile(place, content, len(content), mode))
    return InstalledWheel(
        name=name,
        version=noted["version"],
        files=tuple(sorted(files, key=lambda file: file.path)),
        requires=tuple(noted["requires"]),
        size=noted["size"],
        sha256=digest,
    )
