"""Prints, as JSON, every file below a folder: path -> [size, mtime, mode, owned].

Other file systems that are mounted into it are left out. `owned`: the file is as an installed
distribution lists it, so it came out of a wheel, or it is the bytecode of such a module. Names that
are not UTF-8 come with surrogates.
"""

# A root file system has hundreds of thousands of files, and os.path is several times as quick.
# ruff: noqa: PTH114, PTH118

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import stat
import sys

owned: dict[str, int | None] = {}
for distribution in importlib.metadata.distributions():
    for listed in distribution.files or []:
        if listed.name == "direct_url.json":
            continue  # written by the installer, with the address that it came from
        folder, name = os.path.split(os.path.normpath(str(distribution.locate_file(listed))))
        path = os.path.join(os.path.realpath(folder), name)
        owned[path] = listed.size
        if listed.suffix == ".py":  # its bytecode need not be listed, and has a check of its own
            owned[importlib.util.cache_from_source(path, optimization="")] = None

root = sys.argv[1]
device = os.lstat(root).st_dev
found = {}
for folder, folders, names in os.walk(root):
    folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
    for name in names:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        if status.st_dev == device and (stat.S_ISREG(status.st_mode) or os.path.islink(path)):
            is_owned = owned.get(path, -1) in (None, status.st_size)
            found[path] = [status.st_size, status.st_mtime_ns, status.st_mode, is_owned]
json.dump(found, sys.stdout)
