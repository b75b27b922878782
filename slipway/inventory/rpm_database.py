"""rpm's list of packages: a SQLite file with one header a package.

The header is rpm's own (rpm.org, "RPM Package Format"; rpm:lib/header.c): two counts, an index of
(tag, type, offset, count), then the values. In the database it stands without the magic that it has
in a package's file.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

from slipway.core import SlipwayError
from slipway.records import SystemPackage

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE = 1000, 1001, 1002, 1003, 1022, 1044
_STRINGS, _INT32 = (6, 8, 9), 4
_MOST_ENTRIES = 1 << 16  # rpm's own limit of an index
_KEYS = "gpg-pubkey"
"""Keys that rpm trusts are kept like packages, and are none."""


def rpm_packages(database: bytes, log: bytes | None = None) -> tuple[SystemPackage, ...]:
    """The installed packages, sorted. `log`: the write-ahead log beside the database.

    Raises SlipwayError for a file that is no such database.
    """
    # A file, for Python before 3.11 cannot open a database in memory.
    with tempfile.TemporaryDirectory(prefix="slipway-rpmdb-") as folder:
        path = Path(folder) / "rpmdb.sqlite"
        path.write_bytes(database)
        if log:
            path.with_name("rpmdb.sqlite-wal").write_bytes(log)
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                rows = [row for (row,) in connection.execute("SELECT blob FROM Packages")]
            packages = [_package(row) for row in rows if isinstance(row, bytes)]
        except (sqlite3.Error, struct.error, ValueError) as error:
            raise SlipwayError(f"rpm's database cannot be read: {error}") from error
    return tuple(sorted(package for package in packages if package.name != _KEYS))


def _package(header: bytes) -> SystemPackage:
    entries, size = struct.unpack_from(">II", header)
    store = 8 + 16 * entries
    if entries > _MOST_ENTRIES or store + size > len(header):
        raise ValueError("a header is longer than its record")
    values: dict[int, str] = {}
    for at in range(8, store, 16):
        tag, kind, offset, count = struct.unpack_from(">IIII", header, at)
        if tag not in (_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE) or not count:
            continue
        start = store + offset
        if kind in _STRINGS:
            values[tag] = header[start : header.index(b"\0", start)].decode("utf-8", "replace")
        elif kind == _INT32:
            values[tag] = str(struct.unpack_from(">I", header, start)[0])
    if not (values.get(_NAME) and values.get(_VERSION)):
        raise ValueError("a header names no package")
    release = f"{values[_VERSION]}-{values.get(_RELEASE, '')}".rstrip("-")
    epoch = values.get(_EPOCH, "0")
    source, source_release = _source(values.get(_SOURCE, ""))
    # The name of a source package tells no epoch: it is that of what was built from it.
    version, source_version = (
        text if epoch == "0" else f"{epoch}:{text}" for text in (release, source_release or release)
    )
    return SystemPackage(
        name=values[_NAME],
        version=version,
        architecture=values.get(_ARCH, ""),
        source=source or values[_NAME],
        source_version=source_version,
    )


def _source(name: str) -> tuple[str, str]:
    """(name, version) of "NAME-VERSION-RELEASE.src.rpm"."""
    parts = name.removesuffix(".rpm").rpartition(".")[0].rsplit("-", 2)
    return (parts[0], f"{parts[1]}-{parts[2]}") if len(parts) == 3 else ("", "")
