"""The matrix as it was read last time: most commands begin with it, and seldom has it changed.

Reading versions.yaml (YAML with line numbers, schemas, cross-checks) takes longer than all the rest
of a plan. What came out is kept beside other caches, under a key over everything that decides it.
"""

from __future__ import annotations

import copyreg
import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slipway.core import Project, SlipwayError, write_atomic
from slipway.matrix.model import Matrix

_ROOM = Path(__file__).parent
_KEY_LENGTH = hashlib.sha256().digest_size
_UNREADABLE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    TypeError,
    ValueError,
)


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """The type itself has no name by which a pickle could call it."""
    return MappingProxyType(values)


class _MatrixPickler(pickle.Pickler):
    """Knows the read-only mappings of the matrix, which pickle itself does not."""

    dispatch_table: Any = {  # noqa: RUF012 - as pickle has it
        **copyreg.dispatch_table,
        MappingProxyType: lambda mapping: (_read_only, (dict(mapping),)),
    }


def read_matrix(project: Project) -> Matrix:
    """The matrix of versions.yaml, from the cache where nothing that decides it has changed.

    Raises what `load_matrix` raises; errors are never cached.
    """
    path = project.cache / "matrix.pickle"
    key = _key(project)
    matrix = _cached(path, key)
    if matrix is None or not _are_unchanged(project, matrix):
        from slipway.matrix.load import load_matrix  # brings in YAML and the schemas

        matrix = load_matrix(project.versions)
        buffer = BytesIO(key)
        buffer.seek(len(key))
        _MatrixPickler(buffer).dump(matrix)
        # A plan works where nothing can be written, too.
        with suppress(SlipwayError):
            write_atomic(path, buffer.getvalue())
    return matrix


def _cached(path: Path, key: bytes) -> Matrix | None:
    """What is cached under `key`. A pickle can run code: one that somebody else could have written
    is not read (the state folder may be on a disk that others write to)."""
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            if stream.read(_KEY_LENGTH) != key:
                return None
            matrix = pickle.load(stream)  # noqa: S301 - our own file, see above
    except (OSError, *_UNREADABLE):
        return None
    return matrix if isinstance(matrix, Matrix) else None


def _are_unchanged(project: Project, matrix: Matrix) -> bool:
    """Whether the files that versions.yaml names, and that were read with it, are as they were."""
    for name, digest in matrix.read_files.items():
        try:
            content = (project.versions.parent / name).read_bytes()
        except OSError:
            return False  # load_matrix tells
        if hashlib.sha256(content).hexdigest() != digest:
            return False
    return True


def _key(project: Project) -> bytes:
    digest = hashlib.sha256(f"{sys.version} {_regions_identity()}\n".encode())
    for path in _inputs(project):
        digest.update(f"{path}\n".encode(errors="surrogateescape"))
        with suppress(OSError):  # load_matrix tells what cannot be read
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _inputs(project: Project) -> Iterator[Path]:
    """versions.yaml, what a user keeps beside it, and the code that reads them."""
    yield project.versions
    yield from sorted(project.versions.with_suffix(".d").rglob("*"))
    yield from sorted(_ROOM.rglob("*.py"))


def _regions_identity() -> str:
    """Of the installed botocore, whose list of regions the matrix is checked against."""
    spec = find_spec("botocore")
    status = Path(spec.origin).stat() if spec and spec.origin else None
    return f"{spec.origin} {status.st_mtime_ns}" if spec and status else ""
