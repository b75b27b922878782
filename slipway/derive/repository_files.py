"""Files of the repository in an image: where each comes from, where it goes, with what mode.

What is copied, what the build id counts and what is checked come from this one list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Project, SlipwayError, is_executable, sha256_file
from slipway.matrix import AddedFiles, Addon

_NOT_COPIED = frozenset({".git", "__pycache__"})


@dataclass(frozen=True)
class AddedFile:
    """One file: its path in the build context and in the image, its source, mode and owner."""

    context: str
    target: str
    source: Path
    mode: int
    owner: str  # "uid:gid"


def files_section(addon: str, files: AddedFiles) -> str:
    """The name of the layer in the Dockerfile."""
    return f"{addon}:{files.target}"


def copy_words(addon: str, index: int, files: AddedFiles) -> str:
    """What stands behind COPY."""
    source = f"files/{addon}/{index}"
    if files.source.endswith("/"):
        source += "/"
    elif files.target.endswith("/"):
        source += f"/{Path(files.source).name}"
    owner = f"--chown={_owner(files)} " if files.owner else ""
    return f"{owner}{source} {files.target}"


def added_files(project: Project, addons: Iterable[Addon]) -> tuple[AddedFile, ...]:
    """All files of the repository that add-ons of an image bring, in the order of its layers.

    Raises SlipwayError where versions.yaml names what is not there.
    """
    return tuple(
        file
        for addon in addons
        for index, files in enumerate(addon.files)
        for file in _files(project, addon.name, index, files)
    )


def added_files_key(project: Project, files: AddedFiles) -> str:
    """Hex digest over path, mode, owner and content of all files of one layer."""
    lines = [
        f"{file.target} {file.mode:o} {file.owner} {sha256_file(file.source)}"
        for file in _files(project, "", 0, files)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files(project: Project, addon: str, index: int, files: AddedFiles) -> Iterator[AddedFile]:
    source = f"files/{addon}/{index}"
    root = project.root / files.source
    if files.source.endswith("/"):
        if not root.is_dir() or root.is_symlink():
            raise _missing(addon, files, "no folder")
        for path in _below(root):
            relative = path.relative_to(root).as_posix()
            target = f"{files.target.rstrip('/')}/{relative}"
            yield _file(f"{source}/{relative}", target, path, files)
        return
    if not root.is_file() or root.is_symlink():
        raise _missing(addon, files, "no file")
    into = files.target.endswith("/")
    target = f"{files.target}{root.name}" if into else files.target
    yield _file(f"{source}/{root.name}" if into else source, target, root, files)


def _file(context: str, target: str, path: Path, files: AddedFiles) -> AddedFile:
    default = 0o755 if is_executable(path) else 0o644
    mode = int(files.mode, 8) if files.mode else default
    return AddedFile(context, target, path, mode, _owner(files))


def _owner(files: AddedFiles) -> str:
    user, _, group = (files.owner or "0").partition(":")
    return f"{user}:{group or user}"


def _below(root: Path) -> Iterator[Path]:
    """Regular files below a folder, sorted, with hidden ones."""
    for path in sorted(root.rglob("*")):
        if not _NOT_COPIED.isdisjoint(path.relative_to(root).parts):
            continue
        if path.is_symlink():
            raise SlipwayError(
                f"{path} is a link",
                cure="Put the file itself there: what a link points to may be on one machine only.",
            )
        if path.is_file():
            yield path


def _missing(addon: str, files: AddedFiles, what: str) -> SlipwayError:
    folder = " (a folder ends with a slash)" if what == "no file" else ""
    return SlipwayError(
        f"{addon} adds {files.source}, and there is {what} of that name in the repository{folder}",
        where="versions.yaml",
        cure="Correct `from`, or put it there.",
    )
