"""The code of a job as one archive, as the SageMaker SDK packs a source directory.

The same files give the same bytes, whoever packs them and when.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slipway.core import SlipwayError

LEFT_OUT = frozenset(
    {
        *(".git", ".hg", ".svn", ".venv", ".slipway", ".ipynb_checkpoints"),
        *("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    }
)
"""Names that are no code of a job, wherever they are."""


def write_source_archive(folder: Path, stream: IO[bytes]) -> int:
    """Write folder's files as sourcedir.tar.gz; how many they are.

    Raises SlipwayError for what no archive of a job may hold: a link that leads out of the folder
    (sagemaker-training refuses the archive), or what is no file at all.
    """
    count = 0
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=6, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _files(folder):
            member = tar.gettarinfo(path, arcname=path.relative_to(folder).as_posix())
            if member is None or not (member.isreg() or member.issym() or member.islnk()):
                raise SlipwayError("is no file, and a job's code has files only", where=str(path))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = 0
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            if member.issym():
                _check_link(folder, path)
                tar.addfile(member)
            else:
                member.type, member.linkname = tarfile.REGTYPE, ""
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(member, content)
            count += 1
    return count


def _files(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        folders[:] = sorted(set(folders) - LEFT_OUT - set(links))
        for name in sorted({*files, *links} - LEFT_OUT):
            yield Path(top, name)


def _check_link(folder: Path, link: Path) -> None:
    target = link.readlink()
    inside = Path(os.path.normpath(link.parent / target)).is_relative_to(os.path.normpath(folder))
    if target.is_absolute() or not inside:
        raise SlipwayError(
            f"it leads to {target}, out of the folder that the job gets",
            where=str(link),
            cure="Copy what it leads to into the folder.",
        )
