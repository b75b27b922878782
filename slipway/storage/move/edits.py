"""Changes to configuration files and links, each with the way back, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

from slipway.core import sync_folder, write_atomic
from slipway.storage import enroot_conf
from slipway.storage.docker import (
    DEFAULT_ROOT,
    configured_root,
    own_data_path,
    parse_daemon_json,
    with_containerd_root,
    with_data_root,
)
from slipway.storage.text_files import decode_text

Kind = Literal["docker", "containerd", "enroot", "unit", "link"]


@dataclass(frozen=True)
class FileEdit:
    """One file's content before and after; None where there is no file.

    For a link the content is where it points to.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64"
    )

    kind: Kind
    path: Path
    before: bytes | None
    after: bytes | None
    mode: int = 0o644

    def current(self) -> bytes | None:
        """What is there now."""
        try:
            if self.kind == "link":
                if self.path.is_dir() and not self.path.is_symlink():
                    # Started again after a move was cut off, the engine has its plain folder back,
                    # for which a link to itself under another name stands while it is stopped.
                    return os.fsencode(own_data_path(self.path).name)
                return os.fsencode(self.path.readlink())
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def apply(self) -> None:
        """Make it `after`. Again: nothing changes."""
        self._write(self.after)

    def revert(self) -> None:
        """Make it `before`."""
        self._write(self.before)

    def _write(self, content: bytes | None) -> None:
        if content is None:
            self.path.unlink(missing_ok=True)
        elif self.kind == "link":
            beside = self.path.with_name(f".{self.path.name}.partial")
            beside.unlink(missing_ok=True)
            beside.symlink_to(os.fsdecode(content))
            beside.replace(self.path)
        else:
            write_atomic(self.path, content, mode=self.mode)
        if self.path.parent.exists():
            sync_folder(self.path.parent)

    def back(self) -> FileEdit:
        """The change that undoes this one later, when others may have edited the file since.

        Then only what this one set is set back, and what others wrote stays.
        """
        now = self.current()
        if now == self.after or now is None or self.kind in ("link", "unit"):
            return FileEdit(self.kind, self.path, now, self.before, self.mode)
        wide = self.kind == "docker"
        current = decode_text(now, self.path, wide=wide)
        before = decode_text(self.before, self.path, wide=wide)
        text = _BACK[self.kind](current.text, before.text, self.path)
        return FileEdit(self.kind, self.path, now, current.encode(text), self.mode)


def _docker_back(now: str, before: str, path: Path) -> str:
    root = parse_daemon_json(before, path).get("data-root")
    return with_data_root(now, path, Path(root) if root else None)


def _containerd_back(now: str, before: str, path: Path) -> str:
    del path
    root = configured_root(before) or DEFAULT_ROOT
    return with_containerd_root(now, Path(root))


def _enroot_back(now: str, before: str, path: Path) -> str:
    del path
    values = {key: enroot_conf.conf_value(before, key) for key in enroot_conf.PATHS}
    return enroot_conf.conf_with_values(now, values)


_BACK = {"docker": _docker_back, "containerd": _containerd_back, "enroot": _enroot_back}


def edit_text(kind: Kind, path: Path, change: Callable[[str, Path], str]) -> FileEdit:
    """An edit that changes a file's text, in the encoding that it has. Raises UsageError."""
    edit = edit_file(kind, path, None)
    current = decode_text(edit.before, edit.path, wide=kind == "docker")
    return replace(edit, after=current.encode(change(current.text, edit.path)))


def edit_file(kind: Kind, path: Path, after: bytes | None) -> FileEdit:
    """An edit of a file as it is now; links in its path are followed, its mode stays."""
    real = path.resolve()
    if not real.exists():
        return FileEdit(kind, real, None, after)
    return FileEdit(kind, real, real.read_bytes(), after, real.stat().st_mode & 0o7777)
